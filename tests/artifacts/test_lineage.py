"""Where it comes from, what sets two apart, and whether it can be made again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mygpt.artifacts import recipe as recipe_module
from mygpt.artifacts import store as store_module
from mygpt.artifacts.lineage import Change, diff, rerun, why
from mygpt.artifacts.manifest import tool_parents
from mygpt.artifacts.recipe import already_made, recipe_function
from mygpt.artifacts.store import Store
from mygpt.core.digest import digest_text, digest_value
from mygpt.core.errors import Damaged, Refused, UsageError
from mygpt.core.run import Run


def test_already_made_is_known_before_the_call(toys: ModuleType, documents: Path, run: Run) -> None:
    """Neither the question nor the answer runs the recipe."""
    config, before = toys.GatherConfig(), len(toys.CALLS)
    assert not already_made(toys.gather, config, source=documents, run=run) and len(toys.CALLS) == before
    toys.gather(config, source=documents, run=run)
    assert already_made(toys.gather, config, source=documents, run=run) and len(toys.CALLS) == before + 1
    assert not already_made(toys.gather, toys.GatherConfig(title="Other"), source=documents, run=run)
    fresh = Run(run.home, name="again", fresh=True)
    assert not already_made(toys.gather, config, source=documents, run=fresh)
    fresh.close()


# -- why ----------------------------------------------------------------------------------------------------------------


def test_why_leads_back_to_the_documents(family: dict[str, Any], store: Store, documents: Path) -> None:
    f = family
    tree = why(store, f["feedback"].manifest)
    assert (tree.id, tree.argument, tree.recipe) == (f["feedback"].id, "", "mygpt.toys:remember")
    (deployment,) = tree.children
    assert (deployment.argument, deployment.id, deployment.cost["seconds"] is not None) == ("deployment", f["deployment"].id, True)
    model, adapter, report = deployment.children
    assert (model.argument, model.id, model.note, model.children) == ("model", f["model"].id, "", ())
    assert model.provenance == {"licence": "Apache-2.0"}
    same_model, dataset = adapter.children
    assert (same_model.argument, same_model.id, same_model.note) == ("model", f["model"].id, "shown above")
    corpus, asked = dataset.children
    assert (asked.argument, asked.id, asked.note) == ("completer.model", f["model"].id, "shown above")  # a tool is a parent too
    (source,) = corpus.children
    assert (source.argument, source.kind, source.path) == ("source", "source", str(documents))
    by_hand = {"one.txt": digest_text("Hello, says the first."), "two.txt": digest_text("Good day, says the second.")}
    assert source.digest == digest_value(by_hand)
    (same_adapter,) = report.children
    assert (same_adapter.argument, same_adapter.id, same_adapter.note) == ("adapters", f["adapter"].id, "shown above")


def test_why_as_text(family: dict[str, Any], store: Store, documents: Path) -> None:
    lines = list(why(store, family["adapter"].manifest).lines())
    starts = [
        f"{family['adapter'].id}  by mygpt.toys:tune on 20",
        f"├── model: {family['model'].id}  by mygpt.toys:base on 20",
        f"└── dataset: {family['dataset'].id}  by mygpt.toys:pairs on 20",
        f"    ├── corpus: {family['corpus'].id}  by mygpt.toys:gather on 20",
        f"    │   └── source: source/documents  {documents} (sha256 ",
        f"    └── completer.model: {family['model'].id}  by mygpt.toys:base",
    ]
    assert len(lines) == len(starts)
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True)), lines
    assert lines[-1].endswith("[shown above]")


def test_why_says_when_an_ancestor_is_not_there(family: dict[str, Any], store: Store) -> None:
    store.remove(family["corpus"].manifest)
    (store.artifacts / family["model"].id / "manifest.json").write_text("")
    model, dataset = why(store, family["adapter"].manifest).children
    assert (model.id, model.note) == (family["model"].id, "damaged")
    assert (dataset.children[0].id, dataset.children[0].note) == (family["corpus"].id, "not in this home")


def test_tools_inside_tools_are_parents() -> None:
    a, b, c = ("a" * 64, "b" * 64, "c" * 64)
    tools = {"completer": {"engine": "retrieval", "index": a, "completer": {"model": b, "adapter": None}}, "arms": [{"model": c}]}
    assert tool_parents(tools) == [("completer.index", a), ("completer.completer.model", b), ("arms.0.model", c)]
    assert tool_parents({"completer": {"model": "gpt-4", "address": "https://example.org"}}) == []


# -- diff ---------------------------------------------------------------------------------------------------------------


def test_diff_of_two_settings(toys: ModuleType, family: dict[str, Any], run: Run, store: Store) -> None:
    other = toys.tune(toys.TuneConfig(rank=16), model=family["model"], dataset=family["dataset"], run=run)
    found = diff(store, family["adapter"].manifest, other.manifest)
    assert not found.same_content
    assert found.config == (Change("rank", 8, 16),)
    assert found.facts == (Change("trainable", 800, 1600),)
    assert found.facts[0].delta == 800
    assert [c.key for c in found.files] == ["adapter_config.json"]
    assert set(found.sections()) == {"config", "facts", "files"}


def test_diff_of_inputs_tools_and_figures(toys: ModuleType, family: dict[str, Any], documents: Path, run: Run, store: Store) -> None:
    (documents / "three.txt").write_text("A third.")
    corpus = toys.gather(toys.GatherConfig(), source=documents, run=run)
    from mygpt.infer.scripted import ScriptedCompleter

    dataset = toys.pairs(toys.PairsConfig(), corpus=corpus, completer=ScriptedCompleter(lambda c: "Yes."), run=run)
    found = diff(store, family["dataset"].manifest, dataset.manifest)
    assert found.inputs == (Change("corpus", family["corpus"].digest, corpus.digest),)
    assert Change("completer.model", family["model"].digest, None) in found.tools
    assert Change("completer.name", None, "scripted") in found.tools
    assert Change("rows.train", 2, 3) in found.facts

    better = toys.measure(toys.MeasureConfig(offset=0.125), adapters=(family["adapter"],), run=run)
    found = diff(store, family["report"].manifest, better.manifest)
    assert [(c.key, c.a, c.b, c.delta) for c in found.figures] == [("f1_tuned", 0.33, 0.455, 0.125)]
    assert diff(store, better.manifest, better.manifest).sections() == {}


# -- rerun --------------------------------------------------------------------------------------------------------------


def _rebuild(family: dict[str, Any]) -> Callable[[str, Any], Any]:
    from mygpt.infer.scripted import ScriptedCompleter

    class Again(ScriptedCompleter):
        identity = family["dataset"].manifest.tools["completer"]  # type: ignore[assignment]

    def rebuild(argument: str, identity: Any) -> Any:
        assert (argument, identity["model"]) == ("completer", family["model"].digest)
        return Again(lambda conversation: "It says hello.")

    return rebuild


@pytest.mark.parametrize("kind", ["model", "corpus", "dataset", "adapter", "report", "deployment", "feedback"])
def test_rerun_is_identical_and_leaves_no_trace(kind: str, toys: ModuleType, family: dict[str, Any], run: Run, store: Store) -> None:
    folders, tags = store.folders(), {p: p.read_text() for p in (run.home / "tags").rglob("*") if p.is_file()}
    toys.CALLS.clear()
    result = rerun(store, family[kind].manifest, run, _rebuild(family))
    assert len(toys.CALLS) == 1
    assert result.identical and not result.kept and result.made.content == family[kind].manifest.content
    assert result.differences.sections() == {}
    assert store.folders() == folders
    assert {p: p.read_text() for p in (run.home / "tags").rglob("*") if p.is_file()} == tags


def test_rerun_says_what_differs(
    toys: ModuleType, family: dict[str, Any], run: Run, store: Store, new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = toys.tune(toys.TuneConfig(noisy=True), model=family["model"], dataset=family["dataset"], run=new_run(seed=5))
    monkeypatch.setattr(recipe_module, "_packages", lambda: {**noisy.manifest.packages, "pyarrow": "0.1"})
    result = rerun(store, noisy.manifest, run, _rebuild(family))
    assert not result.identical and result.kept
    assert result.made.seed == 5
    assert result.differences.config == () and result.differences.inputs == ()
    assert [c.key for c in result.differences.files] == ["adapter_model.safetensors"]
    assert result.differences.packages == (Change("pyarrow", noisy.manifest.packages["pyarrow"], "0.1"),)
    assert store.find("adapter/test").digest == noisy.digest  # the tag did not move
    assert store.find("adapter/test-rerun").digest == result.made.digest


def test_rerun_of_a_recipe_that_names_its_result_leaves_latest_alone(
    toys: ModuleType, family: dict[str, Any], run: Run, store: Store
) -> None:
    second = toys.base(toys.BaseConfig(parameters=4), run=run)
    rerun(store, family["model"].manifest, run, _rebuild(family))
    assert store.find("tiny").digest == second.digest


def test_rerun_refuses_changed_sources(family: dict[str, Any], run: Run, store: Store, documents: Path) -> None:
    (documents / "one.txt").write_text("Hello, says another.")
    with pytest.raises(Refused, match=f"The source `source`, {documents}, has changed: its digest was"):
        rerun(store, family["corpus"].manifest, run, _rebuild(family))
    shutil.rmtree(documents)
    with pytest.raises(Refused, match="is gone"):
        rerun(store, family["corpus"].manifest, run, _rebuild(family))


def test_rerun_refuses_lost_and_damaged_inputs(family: dict[str, Any], run: Run, store: Store) -> None:
    (store.artifacts / family["dataset"].id / "payload" / "train.parquet").write_text("")
    store_module._verified.clear()
    with pytest.raises(Damaged, match=r"train\.parquet has 0 bytes"):
        rerun(store, family["adapter"].manifest, run, _rebuild(family))
    store.remove(family["dataset"].manifest)
    with pytest.raises(Refused, match=r"The input `dataset`, dataset/test-.* is not in"):
        rerun(store, family["adapter"].manifest, run, _rebuild(family))


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("os:system", "is not part of mygpt"),
        ("mygpt.core.digest:digest_text", "is not a recipe"),
        ("mygpt.core.digest:nothing", "There is no recipe"),
        ("mygpt.nowhere:f", "There is no recipe"),
    ],
)
def test_a_manifest_cannot_name_arbitrary_code(recipe: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        recipe_function(recipe)


def test_several_tools_are_recorded_each(toys: ModuleType, family: dict[str, Any], run: Run) -> None:
    """A recipe may take a tuple of tools, such as the arms of a comparison."""
    identity = family["dataset"].manifest.tools["completer"]
    arm = _rebuild(family)("completer", identity)
    making = recipe_module._making("mygpt.toys:x", toys.DeployConfig(), {"arms": (arm, arm)}, run)
    assert making.tools == {"arms": [identity, identity]}
