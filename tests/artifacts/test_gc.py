"""Clearing up removes what nothing refers to, and nothing else."""

import fcntl
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mygpt.artifacts.gc import collect_garbage, verify_all
from mygpt.artifacts.model import Model
from mygpt.artifacts.store import Store
from mygpt.core.errors import MygptError, Refused
from mygpt.core.run import Run


def _ids(store: Store) -> set[str]:
    return {m.id for m in store.manifests()}


def test_a_family_is_kept_whole(family: dict[str, Any], store: Store) -> None:
    before = _ids(store)
    assert collect_garbage(store, dry_run=False) == []
    assert _ids(store) == before


def test_old_versions_go_unless_something_came_of_them(
    toys: ModuleType, family: dict[str, Any], documents: Path, run: Run, store: Store
) -> None:
    unused = toys.base(toys.BaseConfig(parameters=5), run=run)
    newest = toys.base(toys.BaseConfig(parameters=6), run=run)  # the family's model is v1 now, unused v2, newest v3 and latest
    (documents / "three.txt").write_text("A third.")
    corpus = toys.gather(toys.GatherConfig(), source=documents, run=run)
    before = _ids(store)
    size = sum(p.stat().st_size for p in (store.artifacts / unused.id).rglob("*") if p.is_file())

    expected = [(unused.id, size, "nothing refers to it")]
    assert collect_garbage(store, dry_run=True) == expected
    assert _ids(store) == before
    assert collect_garbage(store, dry_run=False) == expected
    assert _ids(store) == before - {unused.id}
    assert {newest.id, corpus.id, family["model"].id, family["corpus"].id} <= _ids(store)
    assert Model.open(store, "tiny:v3").digest == newest.digest
    assert verify_all(store) == []


def test_every_version_of_adapters_is_kept_and_what_a_person_tagged(
    toys: ModuleType, family: dict[str, Any], run: Run, store: Store
) -> None:
    tagged = toys.base(toys.BaseConfig(parameters=5), run=run)
    store.tag(tagged.manifest, "for-the-talk")
    toys.base(toys.BaseConfig(parameters=6), run=run)
    old = toys.tune(toys.TuneConfig(rank=2), model=family["model"], dataset=family["dataset"], run=run)
    toys.tune(toys.TuneConfig(rank=4), model=family["model"], dataset=family["dataset"], run=run)
    assert collect_garbage(store, dry_run=False) == []
    assert {old.id, tagged.id} <= _ids(store)


def test_ancestors_through_tools_are_kept(toys: ModuleType, family: dict[str, Any], run: Run, store: Store) -> None:
    """The model that wrote the questions is needed by the dataset, though it is no argument of it."""
    for kind in ("feedback", "deployment", "report", "adapter"):
        for manifest in [m for m in store.manifests() if m.kind == kind]:
            store.remove(manifest)
    toys.base(toys.BaseConfig(parameters=6), run=run)
    assert collect_garbage(store, dry_run=False) == []
    assert family["model"].id in _ids(store)


def test_untagged_goes(toys: ModuleType, family: dict[str, Any], store: Store) -> None:
    store.untag(family["report"].manifest)
    store.untag(family["deployment"].manifest)
    store.untag(family["feedback"].manifest)
    assert collect_garbage(store, dry_run=False) == []  # feedback is never removed, and it needs the deployment, which needs the report
    store.remove(family["feedback"].manifest)
    assert [id for id, _, _ in collect_garbage(store, dry_run=False)] == [family["deployment"].id, family["report"].id]  # child first


def test_damaged_goes_only_when_asked(family: dict[str, Any], store: Store) -> None:
    (store.artifacts / family["report"].id / "payload" / "report.html").write_text("<p>better</p>")
    (store.artifacts / family["feedback"].id / "payload" / "feedback.jsonl").write_text("{}")
    assert [id for id, _ in verify_all(store)] == [family["feedback"].id, family["report"].id]
    assert collect_garbage(store, dry_run=False) == []
    ((id, _, reason),) = collect_garbage(store, dry_run=False, damaged=True)
    assert (id, reason) == (family["report"].id, "report.html was changed")
    assert family["feedback"].id in _ids(store)  # people's words: never


def test_an_unreadable_record_stops_it(family: dict[str, Any], store: Store) -> None:
    """Without the deployment's record nobody knows what the deployment needs."""
    (store.artifacts / family["deployment"].id / "manifest.json").unlink()
    with pytest.raises(Refused, match="cannot be told from what nobody needs"):
        collect_garbage(store, dry_run=False)
    assert [id for id, _, _ in collect_garbage(store, dry_run=False, damaged=True)] == [family["deployment"].id]
    assert collect_garbage(store, dry_run=False) == []


def test_leftovers_of_stopped_processes_go(family: dict[str, Any], store: Store) -> None:
    left = store.home / "staging" / "12345-abcdef" / "payload"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"x" * 1000)
    assert collect_garbage(store, dry_run=True) == [("staging/12345-abcdef", 1000, "left by a process that was stopped")]
    assert left.exists()
    collect_garbage(store, dry_run=False)
    assert list((store.home / "staging").iterdir()) == []


def test_it_waits_for_nobody_and_disturbs_nobody(family: dict[str, Any], store: Store) -> None:
    with store.lock("staging.lock", fcntl.LOCK_SH), pytest.raises(MygptError, match="is storing something"):  # as `publish` holds it
        collect_garbage(store, dry_run=False)
    with store.exclusive("mygpt up docs"), pytest.raises(MygptError, match="is in use by `mygpt up docs`"):
        collect_garbage(store, dry_run=False)
