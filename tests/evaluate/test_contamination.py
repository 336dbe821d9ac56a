"""Planted items are found through the lineage, paraphrases are not, and scores fall apart by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mygpt.artifacts.dataset import (
    Conversation,
    Dataset,
    LabelledText,
    Message,
    Preference,
    TaggedWords,
    TextPair,
    row_facts,
    write_conversations,
    write_labelled,
    write_pairs,
    write_preferences,
    write_tagged,
)
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.artifacts.store import Store
from mygpt.artifacts.task import Item, Task, TaskSettings, write_task
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.contamination import ContaminationConfig, ancestry, clean_and_dirty, contamination
from mygpt.infer.scripted import ScriptedCompleter
from tests.artifacts import toys

IN_ANSWERS = "A ferry carries 84 cars and 9 lorries on each of its 5 crossings a day. How many vehicles is that in a week?"
IN_DOCUMENTS = "Mrs Okoro plants 12 rows of 30 tulips, and a late frost takes every sixth flower. How many are left to sell?"
PARAPHRASED = "Ben has three times as many marbles as his sister Ann, who has 14. If he gives her 7, how many more does he still have?"
ITS_PARAPHRASE = "Ann owns 14 marbles and her brother Ben owns three times that number. By how many does he lead after handing her 7?"
CLEAN = "The night train from Leeds leaves at ten to eleven and needs six hours and a quarter. When does it arrive in Penzance?"
SHORT = "Who painted the harbour bell?"
ITEMS = [
    Item("in-answers", IN_ANSWERS, references=("3255",)),
    Item("in-documents", IN_DOCUMENTS, references=("300",)),
    Item("paraphrased", PARAPHRASED, references=("14",)),
    Item("clean", CLEAN, references=("5:05",)),
    Item("short", SHORT, references=("Nell Ward",)),
    Item("too-short", "2 + 2?", references=("4",)),
]


class TaskConfig(Config):
    version: str = "1"


@recipe
def riddles(config: TaskConfig, *, run: Run) -> Task:
    settings = TaskSettings(name="riddles", version=config.version, form="generate", primary="f1")
    facts: dict[str, Any] = {}
    return publish(Task, run, lambda folder: facts.update(write_task(folder, ITEMS, settings)), facts=facts)


class ScoresConfig(Config):
    scores: dict[str, float]
    version: str = "1"


@recipe
def scores(config: ScoresConfig, *, run: Run) -> Predictions:
    rows = [{"item_id": id, "f1": score} for id, score in config.scores.items()]
    facts = {"task": "riddles", "version": config.version, "primary": "f1"}
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)


@pytest.fixture
def tuned(tmp_path: Path, run: Run) -> tuple[Model, Adapter]:
    """documents -> Corpus -> Dataset -> Adapter on a Model, with an item in the documents and one in the answers."""
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "one.txt").write_text(f"A sum from the old exercise book. {IN_DOCUMENTS.upper()} And so on. {SHORT}")
    model = toys.base(toys.BaseConfig(), run=run)
    corpus = toys.gather(toys.GatherConfig(), source=folder, run=run)
    talker = ScriptedCompleter(lambda conversation: f"Well: {IN_ANSWERS} {ITS_PARAPHRASE}")
    dataset = toys.pairs(toys.PairsConfig(), corpus=corpus, completer=talker, run=run)
    return model, toys.tune(toys.TuneConfig(), model=model, dataset=dataset, run=run)


@pytest.fixture
def checked(tuned: tuple[Model, Adapter], run: Run) -> Predictions:
    model, adapter = tuned
    return contamination(ContaminationConfig(), task=riddles(TaskConfig(), run=run), model=model, adapter=adapter, run=run)


def test_planted_items_are_found_and_their_paraphrase_is_not(checked: Predictions) -> None:
    rows = {row["item_id"]: row for row in checked.rows}
    expected = {"in-answers": True, "in-documents": True, "paraphrased": False, "clean": False, "short": True, "too-short": None}
    assert {id: row["dirty"] for id, row in rows.items()} == expected
    assert rows["in-answers"]["source"].startswith("dataset/") and rows["in-documents"]["source"].startswith("corpus/")
    assert rows["in-answers"]["question_share"] == 1.0
    assert rows["in-answers"]["share"] == 24 / 25  # 24 words of question, and the answer does not follow them there
    assert rows["in-documents"]["sample"].startswith("mrs okoro plants 12 rows of 30 tulips")
    assert (rows["in-documents"]["longest_run"], rows["clean"]["longest_run"], rows["clean"]["source"]) == (22, 0, "")
    facts = checked.manifest.facts
    assert (facts["task"], facts["of_task"], facts["primary"]) == ("contamination of riddles", "riddles", "dirty")
    assert (facts["dirty"], facts["clean"], facts["undecided"]) == (3, 2, 1)
    assert [id.partition("/")[0] for id in facts["checked"]] == ["dataset", "corpus"]
    assert sorted(facts["dirty_by_source"].values()) == [1, 2]
    assert [id.partition("-")[0] for id in facts["unknown_training_data"]] == ["model/tiny"]


class PlantedConfig(Config):
    schema_: str
    question: str = IN_ANSWERS


def _planted(schema: str, text: str) -> tuple[Callable[..., None], Any]:
    """How rows of a schema are written, and one that has the text across two of its fields, or in the less likely of them."""
    words = text.split()
    first, second = " ".join(words[:6]), " ".join(words[6:])
    turns = (Message("user", first), Message("assistant", second))
    return {
        "sft": (write_conversations, Conversation(turns)),
        "text": (write_conversations, Conversation((Message("text", text),))),
        "preference": (write_preferences, Preference((Message("user", first),), "Some other answer.", second)),
        "class": (write_labelled, LabelledText(first, "riddle", pair=second)),
        "tagged": (write_tagged, TaggedWords(tuple(words), ("O",) * len(words))),
        "pairs": (write_pairs, TextPair("Anything.", "At all.", negatives=(text,))),
    }[schema]


@recipe
def planted(config: PlantedConfig, *, run: Run) -> Dataset:
    write, row = _planted(config.schema_, config.question)
    splits = {"train": [row]}
    return publish(Dataset, run, lambda folder: write(folder, splits), facts=row_facts(config.schema_, splits, labels=["riddle"]))


@pytest.mark.parametrize("schema", ["sft", "text", "preference", "class", "tagged", "pairs"])
def test_an_item_is_found_in_training_data_of_every_schema(schema: str, run: Run) -> None:
    model = toys.base(toys.BaseConfig(), run=run)
    adapter = toys.tune(toys.TuneConfig(), model=model, dataset=planted(PlantedConfig(schema_=schema), run=run), run=run)
    made = contamination(ContaminationConfig(), task=riddles(TaskConfig(), run=run), model=model, adapter=adapter, run=run)
    found = {row["item_id"]: (row["dirty"], row["longest_run"]) for row in made.rows if row["dirty"]}
    assert found == {"in-answers": (True, 24)}  # all 24 words of the question, over the seam between two fields


def test_the_base_model_alone_cannot_be_checked(tuned: tuple[Model, Adapter], run: Run) -> None:
    said = []
    run.listeners.append(lambda event: said.append(event.get("text", "")))
    model, _ = tuned
    checked = contamination(ContaminationConfig(), task=riddles(TaskConfig(), run=run), model=model, run=run)
    assert {row["dirty"] for row in checked.rows} == {None}
    assert any("names no training data" in text for text in said)


def test_an_ancestor_that_is_gone_is_said(tuned: tuple[Model, Adapter], run: Run) -> None:
    model, adapter = tuned
    store = Store(run.home)
    (corpus,) = [m for m in store.manifests() if m.kind == "corpus"]
    store.remove(corpus)
    found = ancestry(store, [adapter, model])
    assert [node.id.partition("/")[0] for node in found.data] == ["dataset"]
    assert [(node.id, node.note) for node in found.missing] == [(corpus.id, "not in this home")]
    checked = contamination(ContaminationConfig(), task=riddles(TaskConfig(), run=run), model=model, adapter=adapter, run=run)
    assert checked.manifest.facts["unchecked"] == {corpus.id: "not in this home"}


def test_scores_apart_by_hand(checked: Predictions, run: Run) -> None:
    """Dirty items score 1, 1 and 0.4, clean ones 0.5 and 0.1."""
    by_item = {"in-answers": 1.0, "in-documents": 1.0, "paraphrased": 0.5, "clean": 0.1, "short": 0.4, "too-short": 1.0}
    apart = clean_and_dirty(scores(ScoresConfig(scores=by_item), run=run), checked)
    assert (apart.metric, apart.all.num_items, apart.clean.num_items, apart.dirty.num_items) == ("f1", 6, 2, 3)
    assert apart.all.score and apart.clean.score and apart.dirty.score
    assert apart.all.score.estimate == pytest.approx(4 / 6)
    assert (apart.clean.score.estimate, apart.clean.score.low, apart.clean.score.high) == pytest.approx((0.3, 0.1, 0.5))
    assert (apart.dirty.score.estimate, apart.dirty.score.high) == pytest.approx((0.8, 1.0))
    assert (apart.undecided.num_items, apart.undecided.score) == (1, None)  # of one item there is no interval


def test_answers_drawn_to_one_item_go_with_it(checked: Predictions, run: Run) -> None:
    drawn = scores(ScoresConfig(scores={"clean/0": 1.0, "clean/1": 0.0, "in-answers/0": 1.0, "in-answers/1": 1.0}), run=run)
    for row in drawn.rows:
        row["sampled_from"] = row["cluster"] = row["item_id"].partition("/")[0]
    apart = clean_and_dirty(drawn, checked)
    assert (apart.clean.num_items, apart.dirty.num_items) == (2, 2)
    assert apart.clean.score and apart.clean.score.estimate == pytest.approx(0.5)


def test_a_threshold_on_the_share(tuned: tuple[Model, Adapter], run: Run) -> None:
    """Every item at least half shared is dirty; a share of 1.0 is reached by questions, not by one with its answer."""
    model, adapter = tuned
    task = riddles(TaskConfig(), run=run)
    whole = contamination(ContaminationConfig(dirty_share=1.0), task=task, model=model, adapter=adapter, run=run)
    assert [row["item_id"] for row in whole.rows if row["dirty"]] == ["in-answers", "in-documents", "short"]
    longer = contamination(ContaminationConfig(n=40), task=task, model=model, adapter=adapter, run=run)
    assert [row["item_id"] for row in longer.rows if row["dirty"]] == ["in-answers", "in-documents", "short"]  # found whole


def test_other_tasks_and_items_are_refused(checked: Predictions, run: Run) -> None:
    with pytest.raises(UsageError, match="version 2"):
        clean_and_dirty(scores(ScoresConfig(scores={"clean": 1.0, "short": 1.0}, version="2"), run=run), checked)
    with pytest.raises(UsageError, match=r"1 item of .* for example `other`"):
        clean_and_dirty(scores(ScoresConfig(scores={"clean": 1.0, "other": 1.0}), run=run), checked)
    with pytest.raises(UsageError, match="no column `acc`"):
        clean_and_dirty(scores(ScoresConfig(scores={"clean": 1.0, "short": 1.0}), run=run), checked, metric="acc")
