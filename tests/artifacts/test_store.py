"""Verified reads, reuse, tags, references, and a catalogue that is only an index."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mygpt.artifacts import store as store_module
from mygpt.artifacts.corpus import Corpus
from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.gc import verify_all
from mygpt.artifacts.manifest import content_digest, identity_digest, request_digest
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, safe_name, source_digest
from mygpt.artifacts.store import Store
from mygpt.core.digest import digest_value
from mygpt.core.errors import Damaged, MygptError, UsageError
from mygpt.core.run import Run

# -- reading verifies ---------------------------------------------------------------------------------------------------


def _change_a_byte(folder: Path) -> None:
    file = folder / "payload" / "model.safetensors"
    file.write_bytes(b"\x09" + file.read_bytes()[1:])


def _edit(field: str, value: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        record = json.loads((folder / "manifest.json").read_text())
        record[field] = value
        (folder / "manifest.json").write_text(json.dumps(record, indent=1))

    return edit


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "changed file": (_change_a_byte, "model.safetensors was changed"),
    "longer file": (lambda f: (f / "payload" / "config.json").write_text("{}  "), "config.json has 4 bytes instead of 17"),
    "missing file": (lambda f: (f / "payload" / "config.json").unlink(), "config.json is missing"),
    "extra file": (lambda f: (f / "payload" / "pytorch_model.bin").write_text(""), "pytorch_model.bin does not belong"),
    "extra link": (lambda f: (f / "payload" / "link").symlink_to("/"), "link does not belong"),
    "missing payload": (lambda f: shutil.rmtree(f / "payload"), "is missing"),
    "missing manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json cannot be read: No such file or directory"),
    "cut manifest": (lambda f: os.truncate(f / "manifest.json", 100), "manifest.json cannot be read"),
    "edited config": (_edit("config", {"parameters": 9}), "it is not as it was written"),
    "edited facts": (_edit("facts", {"head": "reward"}), "it is not as it was written"),
    "edited licence": (_edit("provenance", {"licence": "mine"}), "it is not as it was written"),
    "renamed folder": (lambda f: f.rename(f.with_name(f.name.replace("tiny", "other"))), "it is that of model/tiny-"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed(damage: str, toys: ModuleType, run: Run, store: Store) -> None:
    model = toys.base(toys.BaseConfig(), run=run)
    store_module._verified.clear()  # as in a new process
    hurt, words = DAMAGES[damage]
    hurt(store.artifacts / model.id)
    with pytest.raises(Damaged) as found:
        store.payload(Model.open(Store(run.home), model.digest).manifest)
    assert words in found.value.what
    assert "mygpt gc --damaged" in found.value.fix
    ((_, problem),) = verify_all(store)
    assert words in problem


def test_a_forged_record_with_a_new_seal_is_noticed(toys: ModuleType, run: Run, store: Store) -> None:
    model = toys.base(toys.BaseConfig(), run=run)
    path = store.artifacts / model.id / "manifest.json"
    record = json.loads(path.read_text())
    record["config"] = {"parameters": 9}
    record["seal"] = digest_value({k: v for k, v in record.items() if k != "seal"})
    path.write_text(json.dumps(record))
    store_module._verified.clear()
    with pytest.raises(Damaged, match="recipe, settings or inputs were changed"):
        store.payload(store.find("tiny"))


def test_digests_are_those_of_the_definition(family: dict[str, Any]) -> None:
    m = family["adapter"].manifest
    assert m.content == content_digest(m.files) == digest_value({path: record.sha256 for path, record in m.files.items()})
    inputs = {"model": [family["model"].digest], "dataset": [family["dataset"].digest]}
    by_hand = digest_value({"recipe": "mygpt.toys:tune", "config": {"rank": 8, "noisy": False}, "inputs": inputs, "tools": {}, "seed": 0})
    assert m.request == request_digest(m.recipe, m.config, m.inputs, m.tools, m.seed) == by_hand
    assert m.digest == identity_digest("adapter", m.content, m.request) == digest_value(["adapter", m.content, by_hand])


def test_one_damaged_artefact_does_not_hide_the_others(family: dict[str, Any], store: Store) -> None:
    (store.artifacts / family["report"].id / "manifest.json").write_text("")
    assert Adapter.open(store, "test").digest == family["adapter"].digest
    assert "report" not in {m.kind for m in store.manifests()}
    with pytest.raises(UsageError, match="No artefact `nothing`"):
        store.find("nothing")
    with pytest.raises(Damaged):
        store.find("report/test")


# -- equal requests are made once ----------------------------------------------------------------------------------------


def test_equal_request_is_not_made_again(toys: ModuleType, documents: Path, run: Run, new_run: Callable[..., Run]) -> None:
    first = toys.gather(toys.GatherConfig(), source=documents, run=run)
    second = toys.gather(toys.GatherConfig(), source=documents, run=new_run())
    assert toys.CALLS == ["gather"]
    assert second.manifest == first.manifest


@pytest.mark.parametrize("change", ["config", "source", "seed", "fresh"])
def test_another_request_is_made(change: str, toys: ModuleType, documents: Path, run: Run, new_run: Callable[..., Run]) -> None:
    toys.gather(toys.GatherConfig(), source=documents, run=run)
    config = toys.GatherConfig(title="Other") if change == "config" else toys.GatherConfig()
    if change == "source":
        (documents / "three.txt").write_text("A third.")
    again = new_run(seed=1 if change == "seed" else 0, fresh=change == "fresh")
    toys.gather(config, source=documents, run=again)
    assert toys.CALLS == ["gather", "gather"]


def test_the_same_documents_elsewhere_are_the_same_request(toys: ModuleType, documents: Path, run: Run, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(documents, moved)
    toys.gather(toys.GatherConfig(), source=documents, run=run)
    toys.gather(toys.GatherConfig(), source=moved, run=run)
    assert toys.CALLS == ["gather"]


def test_a_side_product_does_not_answer_for_the_whole(toys: ModuleType, family: dict[str, Any], run: Run, store: Store) -> None:
    """`measure` stores Predictions, then a Report. Stopped between the two, it must work again, not return the Predictions."""
    store.remove(family["report"].manifest)
    toys.CALLS.clear()
    report = toys.measure(toys.MeasureConfig(), adapters=(family["adapter"],), run=run)
    assert toys.CALLS == ["measure"] and report.kind == "report"


def test_a_damaged_record_is_made_again_and_replaced(toys: ModuleType, run: Run, store: Store) -> None:
    model = toys.base(toys.BaseConfig(), run=run)
    (store.artifacts / model.id / "manifest.json").write_text("{}")
    again = toys.base(toys.BaseConfig(), run=run)
    assert toys.CALLS == ["base", "base"]
    assert again.digest == model.digest and verify_all(store) == []
    toys.base(toys.BaseConfig(), run=run)
    assert toys.CALLS == ["base", "base"]


def test_equal_content_is_stored_once(toys: ModuleType, run: Run, new_run: Callable[..., Run], store: Store) -> None:
    first = toys.base(toys.BaseConfig(), run=run)
    second = toys.base(toys.BaseConfig(), run=new_run(fresh=True))
    assert toys.CALLS == ["base", "base"]
    assert second.manifest == first.manifest  # the record that stands, with its time and cost
    assert store.folders() == [store.artifacts / first.id]
    assert store.tags("model", "tiny") == {"v1": first.digest, "latest": first.digest}


def test_publish_belongs_in_a_recipe(run: Run) -> None:
    with pytest.raises(AssertionError, match="inside a function marked @recipe"):
        publish(Corpus, run, lambda folder: None)


def test_nothing_is_left_of_a_recipe_that_fails(toys: ModuleType, family: dict[str, Any], run: Run, store: Store) -> None:
    before = store.folders()
    with pytest.raises(IndexError):
        toys.measure(toys.MeasureConfig(), adapters=(), run=run)
    assert store.folders() == before and list((run.home / "staging").iterdir()) == []


# -- names, tags, references ---------------------------------------------------------------------------------------------


def test_versions_count_up_and_latest_moves(toys: ModuleType, run: Run, store: Store) -> None:
    one, two, three = (toys.base(toys.BaseConfig(parameters=n), run=run) for n in (1, 2, 3))
    assert store.tags("model", "tiny") == {"v1": one.digest, "v2": two.digest, "v3": three.digest, "latest": three.digest}
    assert Model.open(store, "tiny:v2").digest == two.digest
    assert Model.open(store, "tiny").digest == three.digest
    toys.base(toys.BaseConfig(parameters=1), run=run)  # asked for again
    assert Model.open(store, "tiny").digest == one.digest
    assert sorted(store.tags("model", "tiny")) == ["latest", "v1", "v2", "v3"]


def test_a_tag_to_nothing_is_ignored_and_its_number_not_given_again(toys: ModuleType, run: Run, store: Store) -> None:
    one = toys.base(toys.BaseConfig(parameters=1), run=run)
    two = toys.base(toys.BaseConfig(parameters=2), run=run)
    store.remove(two.manifest)
    tags = run.home / "tags" / "model" / "tiny"
    (tags / "broken").write_text("not a digest")
    assert store.lookup("tiny") is None and store.lookup("tiny:broken") is None
    assert Model.open(store, "tiny:v1").digest == one.digest
    toys.base(toys.BaseConfig(parameters=3), run=run)
    assert sorted(store.tags("model", "tiny")) == ["latest", "v1", "v2", "v3"]


def test_every_way_to_name_one(family: dict[str, Any], store: Store) -> None:
    adapter = family["adapter"]
    for reference in ("test", "test:v1", "test:latest", "adapter/test", "adapter/test:v1", adapter.id, adapter.digest, adapter.digest[:8]):
        assert Adapter.open(store, reference).digest == adapter.digest, reference
    for reference in ("tset", "adapter/../adapter/test", "*", "te*", "test:v2", "model/tiny", "", ":", "/", "a/b/c", adapter.digest[:7]):
        with pytest.raises(UsageError):
            Adapter.open(store, reference)


def test_a_near_name_is_offered(family: dict[str, Any], store: Store) -> None:
    with pytest.raises(UsageError, match="Did you mean `tiny`"):
        store.find("tinny")


def test_an_ambiguous_digest_is_refused(family: dict[str, Any], store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [family["model"].manifest, family["adapter"].manifest]
    monkeypatch.setattr(store, "_by_digest", lambda prefix, kind: both)
    with pytest.raises(UsageError, match="is the beginning of several digests"):
        store.find("0123abcd")


@pytest.mark.parametrize(
    ("given", "safe"),
    [("My docs", "My-docs"), ("../../etc", "etc"), ("a/b:c", "a-b-c"), ("...", "unnamed"), ("Über uns", "Über-uns"), ("x" * 300, "x" * 80)],
)
def test_names_are_folders_and_references_everywhere(
    given: str, safe: str, toys: ModuleType, documents: Path, run: Run, store: Store
) -> None:
    assert safe_name(given) == safe
    run.name = given
    made = toys.gather(toys.GatherConfig(), source=documents, run=run)
    assert Corpus.open(store, f"corpus/{safe}:v1").digest == made.digest


def test_two_processes_do_not_take_the_same_version(toys: ModuleType, run: Run, store: Store) -> None:
    """Eight at once through eight file descriptors: flock treats them like eight processes."""
    runs = [Run(run.home, name=f"r{n}") for n in range(8)]
    threads = [threading.Thread(target=toys.base, args=(toys.BaseConfig(parameters=n),), kwargs={"run": r}) for n, r in enumerate(runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tags = store.tags("model", "tiny")
    assert sorted(tags) == ["latest", *(f"v{n}" for n in range(1, 9))]
    assert len({tags[f"v{n}"] for n in range(1, 9)}) == 8


def test_the_model_cache_is_read_and_never_written(toys: ModuleType, run: Run, tmp_path: Path) -> None:
    cache = Run(tmp_path / "user" / ".cache" / "mygpt", name="download")
    model = toys.base(toys.BaseConfig(), run=cache)
    before = sorted(str(p) for p in cache.home.rglob("*"))
    store = Store(run.home)
    assert toys.base(toys.BaseConfig(), run=run).digest == model.digest
    assert toys.CALLS == ["base"]
    assert Model.open(store, "tiny").payload == cache.home / "artifacts" / model.id / "payload"
    assert store.folders() == []
    assert [p for p in sorted(str(p) for p in cache.home.rglob("*")) if "catalogue" not in p] == before


# -- sources -------------------------------------------------------------------------------------------------------------


def test_source_digest_is_of_names_and_bytes(documents: Path, tmp_path: Path) -> None:
    before = source_digest(documents)
    (documents / ".hidden").write_text("not looked at")
    assert source_digest(documents) == before
    (documents / "one.txt").rename(documents / "uno.txt")
    assert source_digest(documents) != before
    (documents / "uno.txt").rename(documents / "one.txt")
    assert source_digest(documents) == before
    outside = tmp_path / "outside.txt"
    outside.write_text("secret")
    (documents / "link.txt").symlink_to(outside)
    linked = source_digest(documents)
    outside.write_text("other secret")
    assert source_digest(documents) == linked != before  # a link out of the folder is known, not followed
    with pytest.raises(UsageError, match="There is no file or folder"):
        source_digest(tmp_path / "nowhere")


# -- the catalogue ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["deleted", "corrupt", "empty file", "cut", "a folder", "foreign", "stale"])
def test_the_catalogue_is_only_an_index(harm: str, toys: ModuleType, family: dict[str, Any], run: Run, store: Store) -> None:
    path = run.home / "catalogue.sqlite"
    toys.base(toys.BaseConfig(), run=run)  # asks it
    whole = path.read_bytes()
    path.unlink()
    if harm == "corrupt":
        path.write_bytes(b"not a database, but long enough to have a header of a hundred bytes" * 100)
    elif harm == "empty file":
        path.write_bytes(b"")
    elif harm == "cut":
        path.write_bytes(whole[: len(whole) // 2] + b"\xff" * 100)
    elif harm == "a folder":
        path.mkdir()
    elif harm == "foreign":
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE entries (something TEXT)")
    elif harm == "stale":  # an artefact vanished by hand, another came by hand: equal counts
        path.write_bytes(whole)
        shutil.rmtree(store.artifacts / family["feedback"].id)
    toys.CALLS.clear()
    assert toys.base(toys.BaseConfig(), run=run).digest == family["model"].digest
    assert toys.CALLS == []
    if harm == "stale":
        toys.remember(toys.RememberConfig(), deployment=family["deployment"], run=run)
        assert toys.CALLS == ["remember"]


def test_the_catalogue_is_rebuilt_from_the_manifests(family: dict[str, Any], run: Run, store: Store) -> None:
    (run.home / "catalogue.sqlite").unlink()
    assert store.rebuild_catalogue() == 8  # the seven of the family and the predictions
    with sqlite3.connect(run.home / "catalogue.sqlite") as db:
        rows = set(db.execute("SELECT folder, request FROM entries"))
    assert rows == {(m.id, m.request) for m in store.manifests()}


def test_artefacts_copied_in_by_hand_are_found(toys: ModuleType, family: dict[str, Any], run: Run, tmp_path: Path) -> None:
    there = Run(tmp_path / "other home", name="copy")
    shutil.copytree(run.home / "artifacts", there.home / "artifacts")
    toys.CALLS.clear()
    assert toys.base(toys.BaseConfig(), run=there).digest == family["model"].digest
    assert toys.CALLS == []
    assert Model.open(Store(there.home), "tiny:v1").digest == family["model"].digest  # asked for: tagged


# -- one writer at a time ------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from mygpt.artifacts.store import Store
with Store(Path(sys.argv[1])).exclusive("mygpt up docs"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_dead(store: Store) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(store.home)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        with pytest.raises(MygptError) as refused, store.exclusive("mygpt add"):
            pass
        assert f"is in use by `mygpt up docs` (process {holder.pid})" in refused.value.what
        assert "--home DIR" in refused.value.fix
    finally:
        holder.kill()
        holder.wait()
    with store.exclusive("mygpt add"):
        assert (store.home / "lock").read_text() == f"`mygpt add` (process {os.getpid()})"
    assert (store.home / "lock").read_text() == ""


def test_dataset_is_not_confused_with_another_kind_of_the_same_name(family: dict[str, Any], store: Store) -> None:
    assert Dataset.open(store, "test").kind == "dataset"
    assert {m.kind for m in store.manifests() if m.name == "test"} == set(family) - {"model"} | {"predictions"}
    assert store.find("test").kind == "feedback"  # no kind given: the newest
