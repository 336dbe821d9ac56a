"""A full disk and a read-only home: said in words, and nothing lost."""

import errno
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mygpt.artifacts import store as store_module
from mygpt.artifacts.gc import collect_garbage, verify_all
from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish
from mygpt.artifacts.store import Store
from mygpt.core.errors import MygptError
from mygpt.core.run import Run


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


def test_full_disk(toys: ModuleType, small_disk: Path) -> None:
    run = Run(small_disk / "home", name="test")
    store = Store(run.home)
    kept = toys.base(toys.BaseConfig(parameters=200), run=run)
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 1000)
    before = store.folders()

    with pytest.raises(MygptError, match="The disk is full") as full:
        toys.base(toys.BaseConfig(parameters=201), run=run)
    assert "mygpt gc" in full.value.fix and full.value.exit_code == 1
    with pytest.raises(MygptError, match="The disk is full"):
        for _ in range(100):
            run.note("x" * 1000)
    assert store.folders() == before == [store.artifacts / kept.id]
    assert verify_all(store) == []
    assert Model.open(Store(run.home), "tiny").digest == kept.digest  # reading needs no room
    found = store.made(kept.manifest.request)
    assert found is not None and found.digest == kept.digest
    assert collect_garbage(store, dry_run=False) == []  # clearing up needs none either

    filler.unlink()
    after = Run(run.home, name="test")
    made = toys.base(toys.BaseConfig(parameters=201), run=after)
    assert store.tags("model", "tiny") == {"v1": kept.digest, "v2": made.digest, "latest": made.digest}
    assert verify_all(store) == []


def test_read_only_home(toys: ModuleType, small_disk: Path) -> None:
    run = Run(small_disk / "home", name="test")
    kept = toys.base(toys.BaseConfig(parameters=200), run=run)
    toys.base(toys.BaseConfig(parameters=200), run=run)  # asks the catalogue
    run.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    store = Store(run.home)
    for without_catalogue in (False, True):
        if without_catalogue:
            subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
            (run.home / "catalogue.sqlite").unlink()
            subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        store_module._verified.clear()
        found = store.made(kept.manifest.request)
        assert found is not None and found.digest == kept.digest
        assert (store.payload(found) / "model.safetensors").stat().st_size == 200
        assert Model.open(store, "tiny:v1").digest == kept.digest

    for writing in (
        lambda: Run(run.home, name="test"),
        lambda: store.tag(kept.manifest, "mine"),
        lambda: store.remove(kept.manifest),
        lambda: store.rebuild_catalogue(),
        lambda: store.exclusive("mygpt up").__enter__(),
        lambda: collect_garbage(store, dry_run=False),
    ):
        with pytest.raises(MygptError) as refused:
            writing()
        assert "read-only" in refused.value.what or "cannot be written" in refused.value.what, refused.value.what
        assert "--home DIR" in refused.value.fix
    assert verify_all(store) == []


def _no_space(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere")


@pytest.mark.parametrize(
    "place", ["os.fsync", "os.rename", "os.replace", "mygpt.artifacts.store.write_synced", "mygpt.artifacts.store.record_files"]
)
def test_full_at_each_step_of_publishing(place: str, toys: ModuleType, run: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = toys.base(toys.BaseConfig(parameters=1), run=run)
    with monkeypatch.context() as patch:
        patch.setattr(place, _no_space)
        with pytest.raises(MygptError, match="The disk is full at /"):
            toys.base(toys.BaseConfig(parameters=2), run=run)
    assert verify_all(store) == [] and list((run.home / "staging").iterdir()) == []
    assert store.find("tiny").digest == kept.digest
    toys.base(toys.BaseConfig(parameters=2), run=run)
    assert sorted(store.tags("model", "tiny")) == ["latest", "v1", "v2"]


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("database or disk is full"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError("100000 requested and 8176 written"),
    ],
)
def test_full_as_other_libraries_say_it(error: Exception, run: Run, toys: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of sqlite3, safetensors 0.8 and numpy 2.4 on a full tmpfs."""

    def fail(folder: Path) -> None:
        raise error

    real_publish: Callable[..., Any] = publish
    monkeypatch.setattr(toys, "publish", lambda kind, run, write, **rest: real_publish(kind, run, fail, **rest))
    with pytest.raises(MygptError, match="The disk is full"):
        toys.base(toys.BaseConfig(), run=run)
