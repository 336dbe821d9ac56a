"""Grades by a judge as a reward: the expectation over the scale by hand, normalised."""

import math
from collections.abc import Sequence

import pytest

from mygpt.align.constitution import open_constitution
from mygpt.align.direct_feedback import DirectFeedback, constitutional_feedback, graded_by
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.errors import MygptError, UsageError
from mygpt.infer.judge import Grade, ModelJudge, Reading
from mygpt.infer.protocols import Answer, Identity, Score
from mygpt.infer.rewards import rewards_of
from mygpt.infer.scripted import ScriptedCompleter

PROMPTS = [Conversation((Message("user", "May I come in?"),)), Conversation((Message("user", "And now?"),))]
ANSWERS = [Answer("Yes."), Answer("No!")]


class TableScorer:
    """Of the grades 1 to 10: "Yes." has 8 and 10 with 1/2 each, "No!" has 1 only."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @property
    def identity(self) -> Identity:
        return {"engine": "table"}

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        self.asked += prompts
        tables = [{" 8": 0.5, " 10": 0.5} if "Reply: Yes." in prompt else {" 1": 1.0} for prompt in prompts]
        chances = [table.get(grade, 0.0) for table, grade in zip(tables, continuations, strict=True)]
        return [Score(math.log(chance) if chance else -math.inf, 1, 2) for chance in chances]


def test_by_hand() -> None:
    """Yes: (9 - 5.5) / 4.5 = 7/9. No: (1 - 5.5) / 4.5 = -1."""
    scorer = TableScorer()
    reward = DirectFeedback(ModelJudge(scorer=scorer, wording=graded_by("is friendly")))
    assert rewards_of(reward, PROMPTS, ANSWERS) == pytest.approx([7 / 9, -1.0])
    assert reward(PROMPTS[0], ANSWERS[0]) == pytest.approx(7 / 9)
    assert "Rule: A good reply is friendly.\nRequest: May I come in?\nReply: Yes." in scorer.asked[0]
    assert reward.identity["scale"] == 10 and reward.identity["judges"][0]["scorer"] == {"engine": "table"}


def test_the_mean_over_principles() -> None:
    """By either of two principles the grades are alike, so is their mean; each is asked by its own rule."""
    scorer, office = TableScorer(), open_constitution("careful_office")
    reward = constitutional_feedback(office, scorer, ["calm", "fair"])
    assert reward.each(PROMPTS, ANSWERS) == pytest.approx([7 / 9, -1.0])
    assert {text.split("\n")[2] for text in scorer.asked} == {f"Rule: A good reply {office.principle(p).better}." for p in ("calm", "fair")}
    assert len(constitutional_feedback(office, scorer).identity["judges"]) == len(office.principles)
    with pytest.raises(UsageError, match="no principle `clam`"):
        constitutional_feedback(office, scorer, ["clam"])


def test_a_longer_conversation_is_shown_whole() -> None:
    scorer = TableScorer()
    turns = (Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "May I?"))
    DirectFeedback(ModelJudge(scorer=scorer, wording=graded_by("is friendly")))(Conversation(turns), ANSWERS[0])
    assert "Request: User: Hi\nAssistant: Hello.\nUser: May I?" in scorer.asked[0]


def test_written_grades() -> None:
    """A judge at an address may write its grade; what cannot be read stops with what it said."""
    judge = ModelJudge(completer=ScriptedCompleter(lambda c: "10" if "Yes." in c.question else "Nice!"), wording=graded_by("is friendly"))
    reward = DirectFeedback(judge)
    assert reward.each(PROMPTS[:1], ANSWERS[:1]) == [1.0]
    with pytest.raises(MygptError, match=r"no grade to the answer 'No!'; it said 'Nice!'"):
        rewards_of(reward, PROMPTS, ANSWERS)
    with pytest.raises(UsageError, match="0 judges"):
        DirectFeedback()


def test_another_scale() -> None:
    class Middle:
        @property
        def identity(self) -> Identity:
            return {"judge": "middle"}

        def grade(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Grade]:
            return [Grade(Reading(3.0)) for _ in prompts]

    assert DirectFeedback(Middle(), scale=5).each(PROMPTS, ANSWERS) == [0.0, 0.0]  # type: ignore[arg-type]
