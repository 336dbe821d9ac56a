"""Text from pictures of pages, through Debian's `tesseract` where it is installed. The pictures never leave this machine."""

import shutil
import subprocess
from dataclasses import asdict, dataclass
from typing import Any

PAGE_SECONDS = 120


@dataclass(frozen=True)
class Tesseract:
    """A tool of the recipe: its identity is part of the request, so that installing it reads the scans anew."""

    program: str
    version: str
    languages: str = "eng"  # as tesseract takes them: "eng+deu"

    @property
    def identity(self) -> dict[str, Any]:
        return {"engine": "tesseract", "version": self.version, "languages": self.languages}

    def read(self, png: bytes) -> str:
        """The text of one page. Raises subprocess.SubprocessError when the program fails or takes too long."""
        command = [self.program, "stdin", "stdout", "-l", self.languages]
        done = subprocess.run(command, input=png, capture_output=True, timeout=PAGE_SECONDS, check=True)
        return done.stdout.decode("utf-8", "replace")

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def find_tesseract(languages: str = "") -> Tesseract | None:
    """The installed program with all its languages (or the given ones), or None."""
    program = shutil.which("tesseract")
    if program is None:
        return None
    try:
        version = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20).stdout.split("\n")[0]
        listed = subprocess.run([program, "--list-langs"], capture_output=True, text=True, timeout=20).stdout.splitlines()[1:]
    except (OSError, subprocess.SubprocessError):
        return None
    installed = sorted(name for name in listed if name and name not in ("osd", "snum", "equ"))
    return Tesseract(program, version.removeprefix("tesseract").strip(), languages or "+".join(installed) or "eng")
