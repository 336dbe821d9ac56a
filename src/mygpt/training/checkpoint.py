"""Where a run stands, so that a killed one goes on exactly: optimiser state, step, random state, log.

`<home>/checkpoints/<request>/step-<n>/` = state.safetensors + progress.json, written beside, synced and renamed; the newest stays.
progress.json holds the digest of the state, so that a checkpoint that is not as it was written is never gone on from.
"""

import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mygpt.artifacts.payload import sync_folder, sync_tree
from mygpt.core.digest import digest_file
from mygpt.core.errors import MygptError, from_os_error
from mygpt.core.run import Run

_RANDOM_STATE = "random_state"


class Checkpoints:
    """Of one request. `due()` says when the next one should be written."""

    def __init__(self, home: Path, request: str, *, every_seconds: float):
        self._folder = home / "checkpoints" / request[:32]
        self._every_seconds = every_seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self._last >= self._every_seconds

    def save(self, step: int, tensors: dict[str, torch.Tensor], log: dict[str, Any]) -> None:
        """Whole or not at all. Raises MygptError when the disk does not take it; the one before stays."""
        beside = self._folder / f".step-{step}.{os.getpid()}"
        target = self._folder / f"step-{step}"
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            state = {name: tensor.contiguous() for name, tensor in tensors.items()}
            save_file({**state, _RANDOM_STATE: torch.get_rng_state()}, beside / "state.safetensors")
            progress = {"step": step, "log": log, "state": digest_file(beside / "state.safetensors")}
            (beside / "progress.json").write_text(json.dumps(progress), encoding="utf-8")
            sync_tree(beside)
            shutil.rmtree(target, ignore_errors=True)
            os.rename(beside, target)
            sync_folder(self._folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(beside, ignore_errors=True)
            raise _told(error, beside) from error
        for old in self._folder.iterdir():
            if old != target:
                shutil.rmtree(old, ignore_errors=True)
        self._last = time.monotonic()

    def latest(self, *, run: Run) -> tuple[int, dict[str, torch.Tensor], dict[str, Any]] | None:
        """(next step, tensors, log) of the newest whole checkpoint; restores the random state. Damaged ones are passed over, said aloud."""
        for folder in sorted(self._folder.glob("step-*"), key=lambda p: int(p.name.removeprefix("step-")), reverse=True):
            try:
                progress = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
                step, log, digest = progress["step"], progress["log"], progress["state"]
                if digest_file(folder / "state.safetensors") != digest:
                    raise ValueError("its tensors were changed or cut short")
                tensors = load_file(folder / "state.safetensors")
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                run.warn(f"The checkpoint {folder} cannot be read ({error or type(error).__name__}): it is passed over.")
                continue
            torch.set_rng_state(tensors.pop(_RANDOM_STATE))
            return step, tensors, log
        return None

    def clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _told(error: Exception, file: Path) -> MygptError:
    """safetensors sets no errno: it writes `I/O error: No space left on device (os error 28)`."""
    if isinstance(error, OSError):
        return from_os_error(error)
    number = re.search(r"os error (\d+)", str(error))
    if number is None:
        return MygptError(f"The checkpoint {file} could not be written: {error}.", fix="Check the disk, then run the same command again.")
    return from_os_error(OSError(int(number[1]), os.strerror(int(number[1])), str(file)))
