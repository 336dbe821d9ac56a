"""Where a run stands, so that a killed one goes on exactly: optimiser state, step, random state, log.

`<home>/checkpoints/<request>/step-<n>/` = state.safetensors + progress.json, written beside and renamed; the newest stays.
"""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mygpt.core.errors import from_os_error

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
        try:
            beside = self._folder / f".step-{step}.{os.getpid()}"
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            save_file({**{k: v.contiguous() for k, v in tensors.items()}, _RANDOM_STATE: torch.get_rng_state()}, beside / "state.safetensors")
            (beside / "progress.json").write_text(json.dumps({"step": step, "log": log}))
            target = self._folder / f"step-{step}"
            shutil.rmtree(target, ignore_errors=True)
            os.rename(beside, target)
            for old in self._folder.iterdir():
                if old != target:
                    shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise from_os_error(error) from error
        self._last = time.monotonic()

    def latest(self) -> tuple[int, dict[str, torch.Tensor], dict[str, Any]] | None:
        """(next step, tensors, log) of the newest whole checkpoint; restores the random state."""
        steps = sorted(self._folder.glob("step-*"), key=lambda p: int(p.name.removeprefix("step-")))
        if not steps:
            return None
        tensors = load_file(steps[-1] / "state.safetensors")
        torch.set_rng_state(tensors.pop(_RANDOM_STATE))
        progress = json.loads((steps[-1] / "progress.json").read_text())
        return progress["step"], tensors, progress["log"]

    def clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
