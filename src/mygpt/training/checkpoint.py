"""Where a run stands, so that a killed one goes on exactly: optimiser state, step, random state, log.

`<home>/checkpoints/<request>/step-<n>/` = state.safetensors + progress.json, written beside, synced and renamed; the newest stays.
progress.json holds the digest of the state, so that a checkpoint that is not as it was written is never gone on from, and what the
training is about, so that one with other settings or data can say what differs. stopped.json beside the steps: going on is of no use.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
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
_STOPPED = "stopped.json"


class Checkpoints:
    """Of one request. `due()` says when the next one should be written. `about` is what others will compare theirs with."""

    def __init__(self, home: Path, request: str, *, every_seconds: float, about: dict[str, Any] | None = None):
        self._folder = home / "checkpoints" / request[:32]
        self._every_seconds = every_seconds
        self.about = about or {}
        self._last = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self._last >= self._every_seconds

    @property
    def folder(self) -> Path:
        return self._folder

    def postpone(self) -> None:
        """As if one had been written now."""
        self._last = time.monotonic()

    def save(
        self,
        step: int,
        tensors: dict[str, torch.Tensor],
        log: dict[str, Any],
        *,
        random_states: list[dict[str, torch.Tensor]] | None = None,
    ) -> None:
        """Whole or not at all. Raises MygptError when the disk does not take it; the one before stays.

        `random_states` are those of all ranks, where they are not this process's own of now.
        """
        beside = self._folder / f".step-{step}.{os.getpid()}"
        target = self._folder / f"step-{step}"
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            state = {name: tensor.contiguous() for name, tensor in tensors.items()}
            for rank, states in enumerate(random_states or [random_state()]):
                state.update({f"{_RANDOM_STATE}.{rank}.{device}": tensor for device, tensor in states.items()})
            save_file(state, beside / "state.safetensors")
            progress = {"step": step, "log": log, "state": digest_file(beside / "state.safetensors"), "about": self.about}
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
        self.postpone()

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
            own = _random_state_of(tensors, run.ranks.rank) or _random_state_of(tensors, 0)
            restore_random_state(own)
            return step, {name: tensor for name, tensor in tensors.items() if not name.startswith(_RANDOM_STATE)}, log
        return None

    def others(self) -> Iterator[tuple[Path, int, dict[str, Any]]]:
        """(folder, step, about) of the checkpoints of other requests of this home."""
        for file in sorted(self._folder.parent.glob("*/step-*/progress.json")):
            try:
                progress = json.loads(file.read_text(encoding="utf-8"))
                if file.parents[1] != self._folder and progress["about"]:
                    yield file.parents[1], progress["step"], progress["about"]
            except (OSError, ValueError, KeyError, TypeError):
                continue

    def stop(self, what: str) -> None:
        """Going on from here would fail again, and this is why."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / _STOPPED).write_text(json.dumps({"what": what}), encoding="utf-8")
        except OSError as error:
            raise from_os_error(error) from error

    def stopped(self) -> str | None:
        try:
            told: str = json.loads((self._folder / _STOPPED).read_text(encoding="utf-8"))["what"]
            return told
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def random_state() -> dict[str, torch.Tensor]:
    """Of torch's own generators in this process, by device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_state(states: dict[str, torch.Tensor]) -> None:
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _random_state_of(tensors: dict[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    prefix = f"{_RANDOM_STATE}.{rank}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _told(error: Exception, file: Path) -> MygptError:
    """safetensors sets no errno: it writes `I/O error: No space left on device (os error 28)`."""
    if isinstance(error, OSError):
        return from_os_error(error)
    number = re.search(r"os error (\d+)", str(error))
    if number is None:
        return MygptError(f"The checkpoint {file} could not be written: {error}.", fix="Check the disk, then run the same command again.")
    return from_os_error(OSError(int(number[1]), os.strerror(int(number[1])), str(file)))
