"""The held-out splits as a Task, and one arm measured on it: the rows are the harness's."""

from pathlib import Path

import pytest

from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.digest import digest_text
from mygpt.core.run import Run
from mygpt.evaluate.groundedness import GroundednessConfig, WordSupporter, groundedness
from mygpt.evaluate.harness import RunTaskConfig, run_task
from mygpt.evaluate.held_out_questions import HeldOutConfig, are_enough, held_out_questions
from mygpt.evaluate.prompts import conversation
from mygpt.evaluate.same_items import join
from mygpt.infer.scripted import ScriptedCompleter
from tests.evaluate.made_up import MadeUpConfig, made_up_corpus, made_up_dataset


def test_both_splits_are_slices_of_one_task(run: Run) -> None:
    dataset = made_up_dataset(MadeUpConfig(), run=run)
    task = held_out_questions(HeldOutConfig(max_tokens=16), dataset=dataset, run=run)
    assert (task.name, task.version, task.form, task.primary) == ("test", "1", "generate", "f1")
    assert (task.settings.name, task.settings.max_tokens) == ("held_out_questions", 16)
    assert [sum(i.facts["slice"] == name for i in task.items) for name in ("knowledge", "generalisation")] == [30, 15]
    first = task.items[0]
    assert (first.id, first.question, first.references, first.cluster) == ("k-0", "What is fact 0?", ("Fact 0 is 0 bar",), "passage-k-0")
    assert dataset.digest in task.manifest.parents
    few = held_out_questions(HeldOutConfig(max_items=10), dataset=dataset, run=run)
    assert [i.id for i in few.items][:3] == ["k-0", "k-3", "k-6"] and len(few.items) == 20  # 10 of each, at even distances


def test_rows_are_those_of_the_harness(run: Run) -> None:
    """Asked exactly as the dataset asks, greedily; hashed, read, counted; and two arms can be joined item by item."""
    dataset = made_up_dataset(MadeUpConfig(num_items=4), run=run)
    task = held_out_questions(HeldOutConfig(), dataset=dataset, run=run)
    silent = ScriptedCompleter(lambda c: "" if "rule" in c.question else "Fact", name="silent")
    made = run_task(RunTaskConfig(cached=False), task=task, completer=silent, run=run)
    row, facts = made.rows[0], made.manifest.facts
    assert row["prompt_sha256"] == digest_text("user: What is fact 0?")
    assert (row["slice"], row["cluster"], row["reference"], row["parsed"]) == ("knowledge", "passage-k-0", "Fact 0 is 0 bar", True)
    assert row["f1"] == pytest.approx(2 * 1 / (1 + 5))
    assert (facts["items"], facts["empty"], facts["unparsed"], facts["hashed"]) == (6, 2, 2, ["text"])
    other = run_task(RunTaskConfig(cached=False), task=task, completer=ScriptedCompleter(lambda c: "Rule"), run=run)
    (joined,) = join([made, other])
    assert (joined.task, joined.primary, len(joined.item_ids)) == ("held_out_questions", "f1", 6)


def test_groundedness_finds_the_passage_of_a_question(run: Run) -> None:
    """An answer without passages of its own is held against the passage that its question was made from: the row's cluster."""
    dataset, corpus = one_passage(MadeUpConfig(), run=run), made_up_corpus(MadeUpConfig(), run=run)
    task = held_out_questions(HeldOutConfig(), dataset=dataset, run=run)
    made = run_task(RunTaskConfig(cached=False), task=task, completer=ScriptedCompleter(lambda c: "The pump runs at 40 bar."), run=run)
    judged = groundedness(GroundednessConfig(num_resamples=50), predictions=made, supporter=WordSupporter(), corpus=corpus, run=run)
    assert [row["supported"] for row in judged.rows] == [1, 1]


@recipe
def one_passage(config: MadeUpConfig, *, run: Run) -> Dataset:
    earlier = (Message("system", "Be brief."), Message("user", "Is there a pump?"), Message("assistant", "Yes."))
    asked = [(*earlier, Message("user", "At how many bar?")), (Message("user", "How many bar {does} it run at?"),)]
    place = {"passage": "studied-0"}
    rows = [Conversation((*turns, Message("assistant", "40 bar")), f"q{i}", facts=place) for i, turns in enumerate(asked)]

    def write(folder: Path) -> None:
        write_conversations(folder, {"knowledge": rows})

    return publish(Dataset, run, write, facts=conversation_facts({"knowledge": rows}))


def test_earlier_turns_and_braces_reach_the_model_as_they_are(run: Run) -> None:
    dataset = one_passage(MadeUpConfig(), run=run)
    task = held_out_questions(HeldOutConfig(), dataset=dataset, run=run)
    asked = [conversation(task.settings, item).messages for item in task.items]
    assert asked == [row.prompt for row in dataset.split("knowledge")]


def test_how_many_are_enough(run: Run) -> None:
    """A Task has two items at least: 0 and 0 are none, 1 and 0 is one, 2 and 1 are three."""
    assert [are_enough(made_up_dataset(MadeUpConfig(num_items=n), run=run)) for n in (0, 1, 2)] == [False, False, True]
