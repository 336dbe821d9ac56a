"""A whole race with a base of a few thousand weights: every contender really runs, at equal budget, and what cannot run is said."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mygpt.artifacts.dataset import Dataset, conversation_facts, write_conversations
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Report
from mygpt.artifacts.store import Store
from mygpt.core.errors import Refused, UsageError
from mygpt.core.run import Run
from mygpt.data.replay import ReplayConfig
from mygpt.evaluate.forgetting import GeneralCheckConfig
from mygpt.evaluate.held_out_questions import HeldOutConfig
from mygpt.finetune.sft import sft_forecast
from mygpt.infer.few_shot import choose_examples
from mygpt.lm.adapters import prefix
from mygpt.lm.adapters.freeze import Freeze
from mygpt.lm.adapters.full import Full
from mygpt.lm.load import load_tokenizer
from mygpt.pipelines.race import (
    METHODS,
    Budget,
    Entered,
    RaceConfig,
    RaceRowsConfig,
    contenders_of,
    equal_budget,
    num_tokens,
    race,
    race_rows,
)
from mygpt.pipelines.race_report import training_cost
from mygpt.rag.index import IndexConfig, build_index
from tests.evaluate.made_up import MadeUpConfig, made_up_corpus, made_up_dataset
from tests.pipelines.conftest import TaughtUp, mygpt
from tests.pipelines.teacher import make_tiny_base
from tests.rag.toys import HashedWords

SHORT = {"step_tokens": 256, "max_example_tokens": 512, "num_resamples": 300, "freeze": Freeze(num_layers=1)}
SHORT |= {"replay": ReplayConfig(prompts=8)}
SHORT |= {"questions": HeldOutConfig(max_tokens=4), "general": GeneralCheckConfig(max_tokens=1, piece_characters=4_000)}
ALL = ("few_shot", "retrieval", *METHODS)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("race")
    make_tiny_base(base / "home", base / "tiny")
    return base / "home"


@pytest.fixture(scope="module")
def entered(home: Path) -> Entered:
    run = Run(home, name="toy")
    corpus, embedder = made_up_corpus(MadeUpConfig(), run=run), HashedWords()
    index = build_index(IndexConfig(), corpus=corpus, embedder=embedder, run=run)
    model = Model.open(Store(home), "tiny")
    entered = Entered(made_up_dataset(MadeUpConfig(), run=run), model, index, embedder, corpus)
    run.close()
    return entered


def raced(home: Path, entered: Entered, contenders: tuple[str, ...], **settings: Any) -> tuple[Report, list[dict[str, Any]]]:
    """The report, and what the run told."""
    events: list[dict[str, Any]] = []
    run = Run(home, name="toy-race", listeners=(events.append,))
    report = race(RaceConfig(contenders=contenders, **{**SHORT, **settings}), entered=entered, run=run)
    run.close()
    return report, events


@pytest.fixture(scope="module")
def everybody(home: Path, entered: Entered) -> Report:
    return raced(home, entered, ALL, train_tokens=900)[0]


def test_every_contender_runs(everybody: Report) -> None:
    figures = everybody.figures
    order = [c["contender"] for c in figures["contenders"]]
    assert sorted(order) == sorted(("base", *ALL)) and figures["not_run"] == []
    assert order[:3] == ["base", "few_shot", "retrieval"] and order[-1] == "full"
    weights = [c["cost"]["trainable"] for c in figures["contenders"]]
    assert weights == sorted(weights) and weights[-1] == figures["parameters"]
    for contender in figures["contenders"]:
        assert set(contender["sets"]) == {"knowledge", "generalisation"} and contender["cost"]["ms_per_answer"] > 0
        assert (contender["forgetting"] is not None) == contender["trained"] == (contender["contender"] in METHODS)
    assert figures["sets"]["knowledge"] | {"best": None, "cheapest": None} == {
        "items": 30, "passages": 30, "reliable": True, "best": None, "cheapest": None,
    }  # fmt: skip


def test_the_budget_is_equal(everybody: Report, home: Path, entered: Entered) -> None:
    """All tokens of the rows, or of some, as comes nearest to 900; the same for all, in as many steps."""
    store, figures = Store(home), everybody.figures
    lengths = num_tokens(entered.dataset.split("train"), load_tokenizer(entered.model))
    budget = equal_budget(lengths, 900, 5)
    made = [store.find(c["artifact"]) for c in figures["contenders"] if c["trained"]]
    assert len(made) == len(METHODS)
    rehearsed = {one.inputs["replay"][0].digest for one in made}
    assert len(rehearsed) == 1
    replayed = Dataset.of(store, rehearsed.pop()).split("train")
    assert figures["replay_rows"] == len(replayed)
    told = budget.tokens + budget.epochs * sum(num_tokens(replayed, load_tokenizer(entered.model)))
    assert {one.facts["tokens"] for one in made} == {told} == {figures["train_tokens"]}
    assert len({len(one.facts["curve"]) for one in made}) == 1
    assert figures["train_rows"] == budget.rows


def test_every_method_moved_what_it_says(everybody: Report, home: Path) -> None:
    """Full fine-tuning and freezing make Models, the others Adapters; each says its method, and its loss fell or moved."""
    store = Store(home)
    for contender in everybody.figures["contenders"]:
        if contender["trained"]:
            made = store.find(contender["artifact"])
            assert made.facts["method"] == contender["contender"] and made.name == f"toy-race-{contender['contender']}"
            assert made.kind == (Model.kind if contender["contender"] in ("full", "freeze") else Adapter.kind)


def test_what_a_question_costs(everybody: Report, entered: Entered) -> None:
    """Examples are read before every question, virtual tokens too: a byte is a token here."""
    read = {c["contender"]: c["cost"]["prompt_tokens"] for c in everybody.figures["contenders"]}
    assert read["lora"] == read["full"] == read["base"]
    assert read["prompt"] == read["prefix"] == read["p_tuning"] == pytest.approx(read["base"] + 20)
    examples = choose_examples(entered.dataset.split("train"), 3)
    turns = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for e in examples for m in e.messages)
    special = turns.count("<|im_start|>") + turns.count("<|im_end|>")
    letters = len(turns.replace("<|im_start|>", "").replace("<|im_end|>", ""))
    assert read["few_shot"] == pytest.approx(read["base"] + special + letters)


def test_training_costs_are_those_that_training_recorded() -> None:
    """A quarter of 400 weights in 12.5 seconds; peak memory where training keeps a ledger."""
    facts = {"trainable": 100, "tokens_per_second": 80.0}
    kept: Any = SimpleNamespace(manifest=SimpleNamespace(facts={**facts, "ledger": {"peak_memory_bytes": 7}}, cost={"seconds": 12.5}))
    none: Any = SimpleNamespace(manifest=SimpleNamespace(facts=facts, cost={"seconds": 12.5}))
    base: Any = SimpleNamespace(manifest=SimpleNamespace(facts={"parameters": 400}))
    shown = {"trainable": 100, "trainable_share": 0.25, "train_seconds": 12.5, "tokens_per_second": 80.0, "peak_memory_bytes": 7}
    assert training_cost(kept, base) == shown
    assert training_cost(none, base) == shown | {"peak_memory_bytes": None}


def test_nothing_is_computed_twice(everybody: Report, home: Path, entered: Entered) -> None:
    before = sorted(m.digest for m in Store(home).manifests())
    again, events = raced(home, entered, ALL, train_tokens=900)
    assert again.digest == everybody.digest and not [e for e in events if e["event"] == "published"]
    assert sorted(m.digest for m in Store(home).manifests()) == before


def test_the_page_and_the_record(everybody: Report) -> None:
    page = everybody.page.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "http" not in page.replace("http-equiv", "")
    assert json.loads((everybody.payload / "report.json").read_text())["recommended"] == everybody.manifest.facts["recommended"]
    assert {"answers", "general", "tuned", "dataset", "replay", "model"} == set(everybody.manifest.inputs)


def test_a_large_set_is_cut_to_the_budget() -> None:
    """100 rows of 10 tokens: 250 tokens are 25 rows once, at even distances; 2,400 are two epochs, 2,600 three, and 40,000 no
    more than the five that are allowed; one row is the least."""
    assert equal_budget([10] * 100, 250, 5) == Budget(25, 1, 250)
    assert equal_budget([10] * 100, 2_400, 5) == Budget(100, 2, 2_000)
    assert equal_budget([10] * 100, 2_600, 5) == Budget(100, 3, 3_000)
    assert equal_budget([10] * 100, 3, 5) == Budget(1, 1, 10)
    assert equal_budget([10] * 100, 40_000, 5) == Budget(100, 5, 5_000)
    assert equal_budget([10, 20] * 50, 300, 5).tokens == sum([10, 20][i * 100 // 20 % 2] for i in range(20))


def test_a_refused_method_takes_no_part_and_the_race_goes_on(home: Path, entered: Entered, monkeypatch: pytest.MonkeyPatch) -> None:
    """An architecture that keeps no cache, and more layers than there are."""
    monkeypatch.setattr(prefix, "takes_cache", lambda decoder: False)
    few = ("prefix", "freeze", "lora")
    report, events = raced(home, entered, few, train_tokens=301, freeze=Freeze(num_layers=9))
    reasons = {one["contender"]: one["reason"] for one in report.figures["not_run"]}
    assert reasons == {
        "prefix": "Prefix tuning puts keys and values before the text, and LlamaForCausalLM takes no cache.",
        "freeze": "9 layers were to be trained, and the model has 2.",
    }
    assert [c["contender"] for c in report.figures["contenders"]] == ["base", "lora"]
    told = [e["text"] for e in events if e["event"] == "warning"]
    assert [f"{name} takes no part: {reason}" for name, reason in reasons.items()] == [text for text in told if "no part" in text]
    page = report.page.read_text(encoding="utf-8")
    assert "What took no part" in page and "LlamaForCausalLM takes no cache." in page


def test_rows_that_no_method_can_learn_stop_the_race(home: Path, entered: Entered) -> None:
    with pytest.raises(Refused, match="12 of 12 examples are longer than 8 tokens"):
        raced(home, entered, ("lora", "ia3"), max_example_tokens=8)


def test_an_unknown_contender_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError) as error:
        contenders_of(RaceConfig(contenders=("lora", "promt")))
    assert (error.value.what, error.value.fix) == ("There is no contender `promt`.", "Did you mean `prompt`?")
    with pytest.raises(UsageError, match="Known: few_shot, retrieval, prompt"):
        contenders_of(RaceConfig(contenders=("zzzz",)))


@recipe
def without_questions(config: MadeUpConfig, *, dataset: Dataset, run: Run) -> Dataset:
    splits = {"train": dataset.split("train")}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits), name="bare")


def test_a_dataset_without_held_out_questions(home: Path, entered: Entered) -> None:
    run = Run(home, name="bare")
    bare = without_questions(MadeUpConfig(), dataset=entered.dataset, run=run)
    run.close()
    code, told = mygpt("race", "--dataset", "bare", "--model", "tiny", "--home", str(home), "--dry-run")
    assert code == 2
    assert told["error"] == (
        f"{bare.id} holds no held-out questions to race on: that needs the split `knowledge` or `generalisation`, and it has train (12)."
    )
    assert told["fix"].startswith("`mygpt up DIR` makes a dataset with held-out questions")


# -- the command ------------------------------------------------------------------------------------------------------------


def test_dry_run_says_what_it_would_do(home: Path, entered: Entered) -> None:
    words = ("race", "--dataset", entered.dataset.id, "--model", "tiny", "--home", str(home), "--dry-run", "--set", "train_tokens=900")
    before = sorted(m.digest for m in Store(home).manifests())
    code, plan = mygpt(*words)
    lengths = num_tokens(entered.dataset.split("train"), load_tokenizer(entered.model))
    each = equal_budget(lengths, 900, 5)
    assert code == 0 and plan["contenders"] == ["base", "few_shot", "prompt", "lora", "full"] and plan["not_run"] == ["retrieval"]
    assert (plan["train_tokens_each"], plan["train_tokens"]) == (each.tokens, 3 * each.tokens)
    assert (plan["questions"], plan["answer_tokens_at_most"]) == (45, 45 * 64 * 5)
    assert sorted(m.digest for m in Store(home).manifests()) == before
    needs = plan["training"]
    assert list(needs) == ["prompt", "lora", "full"] and all(" GB of memory (" in found["needs"] for found in needs.values())
    rows = race_rows(RaceRowsConfig(rows=each.rows), dataset=entered.dataset, run=Run(home, name="rows"))
    config = RaceConfig().training(Full(), epochs=each.epochs)
    alone = sft_forecast(config, model=entered.model, dataset=rows, home=home)
    counted = ("trained_weights", "tokens", "steps")
    assert [needs["full"][key] for key in counted] == [alone[key] for key in counted]  # as the training itself will say
    assert needs["full"]["trained_weights"] > needs["lora"]["trained_weights"] > needs["prompt"]["trained_weights"]
    code, told = mygpt("race", "--home", str(home), "--set", "contenders=[lorra]", "--dry-run")
    assert (code, told["fix"]) == (2, "Did you mean `lora`?")


def test_what_up_made_races_by_its_name_or_folder(taught_up: TaughtUp, tmp_path: Path) -> None:
    home = shutil.copytree(taught_up.home, tmp_path / "home")
    settings = ["contenders=[few_shot,retrieval,prompt]", "train_tokens=2000", "num_resamples=300", "questions.max_tokens=4"]
    settings += ["general.max_tokens=1", *(f"{n}=8192" for n in ("max_example_tokens", "step_tokens", "micro_batch_tokens"))]
    words = ("--home", str(home), *(f"--set={setting}" for setting in settings))
    code, result = mygpt("race", "ferry", *words)
    assert code == 0, result
    assert {c["contender"] for c in result["contenders"]} == {"base", "few_shot", "retrieval", "prompt"}
    assert result["sets"]["knowledge"]["items"] == taught_up.result["pairs_knowledge"]
    assert result["model"] == taught_up.result["base"] and Path(result["page"]).is_file()
    assert result["choice"]["text"] and result["id"].startswith("report/ferry-race-")
    code, plan = mygpt("race", str(taught_up.folder), *words, "--dry-run")
    assert (code, plan["dataset"]) == (0, Store(home).find("dataset/ferry").id)
    code, told = mygpt("race", str(tmp_path), *words)
    assert (code, told["fix"]) == (2, f"Begin with `mygpt up {tmp_path}`.")
