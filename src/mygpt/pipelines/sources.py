"""Which files a name stands for: the folder given to `up`, and files given to `add`. Kept in `<home>/sources/<name>.json`."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from mygpt.artifacts.recipe import safe_name
from mygpt.core.digest import digest_text
from mygpt.core.errors import UsageError, from_os_error


@dataclass(frozen=True)
class Sources:
    name: str
    paths: tuple[Path, ...]  # absolute; the folder first

    def with_file(self, file: Path) -> "Sources":
        return Sources(self.name, tuple(dict.fromkeys((*self.paths, file.absolute()))))

    def save(self, home: Path) -> None:
        file = home / "sources" / f"{self.name}.json"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            beside = file.with_suffix(f".{os.getpid()}")
            beside.write_text(json.dumps([str(p) for p in self.paths], indent=1), encoding="utf-8")
            os.replace(beside, file)
        except OSError as error:
            raise from_os_error(error) from error


def sources_of_folder(home: Path, folder: Path, name: str | None) -> Sources:
    """The name's sources, with what was added earlier. Another folder of the same name gets a name of its own."""
    if not folder.exists():
        raise UsageError(f"{folder} does not exist.", fix="Name a folder of documents: `mygpt up DIR`.")
    path = folder.absolute().resolve()
    if not path.is_dir():
        raise UsageError(f"{folder} is a file.", fix="Name a folder of documents; single files are added later with `mygpt add FILE`.")
    chosen = safe_name(name or path.name)
    known = load_sources(home, chosen)
    if known is None:
        return Sources(chosen, (path,))
    if known.paths[0] == path:
        return known
    if name is not None:
        raise UsageError(f"The name `{name}` belongs to {known.paths[0]} in this home.", fix="Choose another `--name`, or another `--home`.")
    own = f"{chosen}-{digest_text(str(path))[:6]}"
    return load_sources(home, own) or Sources(own, (path,))


def load_sources(home: Path, name: str) -> Sources | None:
    file = home / "sources" / f"{name}.json"
    if not file.exists():
        return None
    return Sources(name, tuple(Path(p) for p in json.loads(file.read_text(encoding="utf-8"))))


def newest_sources(home: Path) -> Sources:
    """Of the last `up` in this home."""
    files = sorted((home / "sources").glob("*.json"), key=lambda f: f.stat().st_mtime)
    found = load_sources(home, files[-1].stem) if files else None
    if found is None:
        raise UsageError(f"Nothing was made in {home} yet.", fix="Begin with `mygpt up DIR`.")
    return found
