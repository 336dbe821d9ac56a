"""One cached virtual environment per rival, with pinned versions: a rival's requirements never meet ours.

`python -m benchmarks.rivals lm-eval` builds one; a benchmark calls `rival("lm-eval").run(script, arguments)`. An environment lies under
~/.cache/mygpt-rivals (or $MYGPT_RIVALS), named after the digest of its requirements, so that new pins are a new environment. Shared heavy
packages (torch, transformers) are pinned to the versions that run here: the same kernels on both sides of a ratio.

Where no package index can be reached, `python -m benchmarks.rivals --here trl` makes an environment over the packages of this interpreter,
which must hold the rival.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "lm-eval": ("lm-eval==0.4.13", "accelerate>=1.8", "peft>=0.19"),
    "trl": ("trl==1.16.0", "accelerate>=1.8", "peft>=0.19", "datasets>=3"),
    "trl-gpu": ("trl==1.16.0", "accelerate>=1.8", "datasets>=3", "liger-kernel>=0.6"),
    "trl-align-gpu": ("trl==1.16.0", "accelerate>=1.8", "datasets>=3", "liger-kernel>=0.6"),  # nothing in four bits
    "trl-ppo": ("trl==1.12.0", "accelerate>=1.8", "peft>=0.19", "datasets>=4.7"),  # the last that has PPO
    "datatrove": ("datatrove==0.10.1", "xxhash<4"),
}
_SHARED: dict[str, tuple[str, ...]] = {
    "lm-eval": ("torch", "transformers"),
    "trl": ("torch", "transformers", "peft"),
    "trl-gpu": ("torch", "transformers", "peft", "bitsandbytes"),
    "trl-align-gpu": ("torch", "transformers", "peft"),
    "trl-ppo": ("torch", "transformers", "peft"),
}
_DONE = "built.json"


@dataclass(frozen=True)
class Rival:
    name: str
    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def versions(self) -> dict[str, str]:
        """Of every package in the environment, as they were when it was built."""
        built: dict[str, str] = json.loads((self.folder / _DONE).read_text(encoding="utf-8"))
        return built

    def run(self, script: Path, arguments: Sequence[str], *, timeout_seconds: float = 3600.0) -> Any:
        """What `script` printed as JSON on its last line. Its own folder is all it can import of ours."""
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")}
        environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        done = subprocess.run(
            [str(self.python), "-P", str(script), *arguments], env=environment, capture_output=True, text=True, timeout=timeout_seconds
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self.name} failed ({done.returncode}):\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.strip().splitlines()[-1])


def rival(name: str) -> Rival:
    """The environment of one rival, built at first use."""
    found, requirements = _place(name)
    if not (found.folder / _DONE).is_file():
        _build(found, requirements)
    return found


def _place(name: str) -> tuple[Rival, list[str]]:
    requirements = [*REQUIREMENTS[name], *(f"{package}=={version(package)}" for package in _SHARED.get(name, ()))]
    digest = hashlib.sha256("\n".join([sys.version.split()[0], *requirements]).encode()).hexdigest()[:12]
    home = Path(os.environ.get("MYGPT_RIVALS", Path.home() / ".cache" / "mygpt-rivals"))
    return Rival(name, home / f"{name}-{digest}"), requirements


def _build(made: Rival, requirements: Sequence[str]) -> None:
    made.folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(made.folder)], check=True)
    subprocess.run([str(made.python), "-m", "pip", "install", "--quiet", *requirements], check=True)
    listed = subprocess.run([str(made.python), "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True).stdout
    _done(made, {package["name"]: package["version"] for package in json.loads(listed)})


def build_here(name: str) -> Rival:
    """Nothing is fetched. Raises PackageNotFoundError where the rival is not among this interpreter's packages, or is another version."""
    made, requirements = _place(name)
    pinned = dict(one.split("==") for one in requirements if "==" in one)
    if wrong := {package: version(package) for package, wanted in pinned.items() if version(package) != wanted}:
        raise RuntimeError(f"{name} wants {pinned}, and this interpreter has {wrong}. Install those versions.")
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(made.folder)], check=True)
    (site,) = made.folder.glob("lib/python*/site-packages")
    packages = [path for path in sys.path if path and any(Path(path).glob("*.dist-info"))]
    (site / "shared.pth").write_text("\n".join(packages) + "\n", encoding="utf-8")
    _done(made, {one.name: one.version for one in distributions()})
    return made


def _done(made: Rival, packages: dict[str, str]) -> None:
    """Last: half an environment has no such file."""
    (made.folder / _DONE).write_text(json.dumps(packages, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    here = "--here" in sys.argv
    for wanted in [name for name in sys.argv[1:] if name != "--here"] or REQUIREMENTS:
        sys.stdout.write(f"{wanted}: {(build_here if here else rival)(wanted).folder}\n")
