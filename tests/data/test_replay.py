"""Replay rows are the completer's own whole answers to questions that the general set does not hold."""

from mygpt.artifacts.dataset import Conversation
from mygpt.core.run import Run
from mygpt.data.replay import ReplayConfig, load_prompts, replay
from mygpt.evaluate.general_set import load_general
from mygpt.infer.scripted import ScriptedCompleter


def test_no_replayed_question_measures_forgetting() -> None:
    asked = {question.strip().lower() for question in load_prompts()}
    measured = {item.question.strip().lower() for item in load_general()[0]}
    assert len(load_prompts()) == len(asked) == 90
    assert not asked & measured


def test_rows_are_the_completers_own_answers(run: Run) -> None:
    def reply(conversation: Conversation) -> str:
        return "" if "Kenya" in conversation.question else f"About: {conversation.question}"

    made = replay(ReplayConfig(prompts=5), completer=ScriptedCompleter(reply), run=run)
    rows = made.split("train")
    assert [r.question for r in rows] == [q for q in load_prompts()[:5] if "Kenya" not in q]
    assert rows[0].answer == f"About: {rows[0].question}"
    assert made.manifest.facts["dropped"] == {"no answer": 1}


def test_no_prompts_no_rows(run: Run) -> None:
    made = replay(ReplayConfig(prompts=0), completer=ScriptedCompleter(lambda c: "x"), run=run)
    assert made.split("train") == []
