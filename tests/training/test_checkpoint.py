"""What is saved comes back to the bit; what is damaged is passed over; what the disk refuses is said in words."""

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from mygpt.core.errors import MygptError
from mygpt.core.run import Run
from mygpt.training import checkpoint
from mygpt.training.checkpoint import Checkpoints

REQUEST = "ab" * 32


def tensors(value: float = 0.5) -> dict[str, torch.Tensor]:
    return {"step.a": torch.tensor(3.0), "master.a": torch.full((40, 50), value).t(), "exp_avg.a": torch.tensor([1e-45, -0.0, 3.0])}


@pytest.fixture
def warnings(run: Run) -> list[str]:
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event["text"]) if event["event"] == "warning" else None)
    return said


def open_at(home: Path) -> Checkpoints:
    return Checkpoints(home, REQUEST, every_seconds=0)


def folder(home: Path) -> Path:
    return home / "checkpoints" / REQUEST[:32]


def test_comes_back_to_the_bit(run: Run, warnings: list[str]) -> None:
    assert open_at(run.home).latest(run=run) is None
    torch.manual_seed(3)
    torch.rand(5)
    log = {"curve": [[1, 0.1], [2, 1 / 3]], "seconds": 1.2345678901234567}
    open_at(run.home).save(7, tensors(), log)
    expected = torch.rand(4)
    torch.manual_seed(99)
    saved = open_at(run.home).latest(run=run)
    assert saved is not None
    step, found, found_log = saved
    assert (step, found_log) == (7, log)
    assert set(found) == set(tensors())
    assert all(torch.equal(found[name].view(torch.int32), tensor.contiguous().view(torch.int32)) for name, tensor in tensors().items())
    assert torch.equal(torch.rand(4), expected)
    assert warnings == []


def test_only_the_newest_stays_and_clear_leaves_nothing(run: Run) -> None:
    checkpoints = open_at(run.home)
    for step in (1, 2, 10):
        checkpoints.save(step, tensors(step), {})
        assert [p.name for p in folder(run.home).iterdir()] == [f"step-{step}"]
    checkpoints.save(10, tensors(11), {})  # the same step again
    saved = checkpoints.latest(run=run)
    assert saved is not None and float(saved[1]["master.a"][0, 0]) == 11
    checkpoints.clear()
    assert checkpoints.latest(run=run) is None and not folder(run.home).exists()


def test_due(run: Run) -> None:
    assert open_at(run.home).due()
    assert not Checkpoints(run.home, REQUEST, every_seconds=3600).due()


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "state cut short": lambda step: _cut(step / "state.safetensors"),
    "state empty": lambda step: (step / "state.safetensors").write_bytes(b"") and None,
    "one bit flipped": lambda step: _flip(step / "state.safetensors"),
    "state missing": lambda step: (step / "state.safetensors").unlink(),
    "progress cut short": lambda step: (step / "progress.json").write_text('{"step": 2, "lo') and None,
    "progress of another form": lambda step: (step / "progress.json").write_text("[2]") and None,
    "progress without a digest": lambda step: (step / "progress.json").write_text('{"step": 2, "log": {}}') and None,
    "progress missing": lambda step: (step / "progress.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_ones_are_passed_over(damage: str, run: Run, warnings: list[str], tmp_path: Path) -> None:
    """A crash between rename and clearing up leaves two: the older one is gone on from."""
    open_at(run.home).save(1, tensors(1), {"curve": []})
    shutil.copytree(folder(run.home) / "step-1", tmp_path / "older")
    open_at(run.home).save(2, tensors(2), {"curve": []})
    DAMAGE[damage](folder(run.home) / "step-2")
    assert open_at(run.home).latest(run=run) is None
    assert len(warnings) == 1 and "step-2" in warnings[0] and "passed over" in warnings[0]
    shutil.copytree(tmp_path / "older", folder(run.home) / "step-1")
    saved = open_at(run.home).latest(run=run)
    assert saved is not None and saved[0] == 1 and float(saved[1]["master.a"][0, 0]) == 1
    assert len(warnings) == 2


def test_half_written_ones_do_not_count(run: Run, warnings: list[str]) -> None:
    open_at(run.home).save(4, tensors(), {})
    half = folder(run.home) / ".step-5.4242"
    half.mkdir()
    (half / "state.safetensors").write_bytes(b"half")
    saved = open_at(run.home).latest(run=run)
    assert saved is not None and saved[0] == 4 and warnings == []
    open_at(run.home).save(6, tensors(), {})
    assert not half.exists()


@pytest.mark.parametrize("place", ["save_file", "sync_tree", "os.rename"])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["errno", "safetensors"],
)
def test_full_disk(place: str, error: Exception, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = open_at(run.home)
    checkpoints.save(1, tensors(1), {})

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint if "." not in place else os, place.rpartition(".")[2], fail)
        with pytest.raises(MygptError, match="The disk is full at") as full:
            checkpoints.save(2, tensors(2), {})
    assert full.value.exit_code == 1 and "mygpt gc" in full.value.fix
    assert [p.name for p in folder(run.home).iterdir()] == ["step-1"]
    saved = checkpoints.latest(run=run)
    assert saved is not None and saved[0] == 1


def test_another_fault_of_safetensors_is_told_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise SafetensorError("header too large")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(MygptError, match="could not be written: header too large"):
        open_at(run.home).save(2, tensors(2), {})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """64 kB of it."""
    place = tmp_path / "small"
    place.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("a small disk needs `mount` and root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_is_really_full_then_read_only(small_disk: Path, run: Run) -> None:
    checkpoints = open_at(small_disk)
    checkpoints.save(1, tensors(), {})  # 8 kB
    with pytest.raises(MygptError, match="The disk is full at"):
        checkpoints.save(2, {"master.a": torch.zeros(50_000)}, {})
    assert [p.name for p in folder(small_disk).iterdir()] == ["step-1"]
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(MygptError, match="The folder is read-only at") as refused:
        checkpoints.save(2, tensors(), {})
    assert "--home DIR" in refused.value.fix
    saved = checkpoints.latest(run=run)
    assert saved is not None and saved[0] == 1


def test_no_pickle(run: Run) -> None:
    open_at(run.home).save(1, tensors(), {"curve": [[1, 2.5]]})
    files = sorted(p.name for p in (folder(run.home) / "step-1").iterdir())
    assert files == ["progress.json", "state.safetensors"]
    assert json.loads((folder(run.home) / "step-1" / "progress.json").read_text())["log"] == {"curve": [[1, 2.5]]}
