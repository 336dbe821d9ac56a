"""Soft labels by hand from a table of log-probabilities: both orders, several principles, reasons, and what cannot be compared."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import count

import pytest

from mygpt.align.ai_preferences import AIPreferencesConfig, ai_preferences
from mygpt.artifacts.dataset import Conversation, Dataset
from mygpt.artifacts.model import Model
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer, Identity, Sampling, Score
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.infer.torch_engine import TorchEngine
from tests.align import sites

ONE_PROMPT = sites.PromptsConfig(questions=("Where are the logs?",))
WHOLE = {"test_share": 0.0, "examples": 0}


class TableJudge:
    """The chances of " A" and " B" by the two replies that are shown."""

    def __init__(self, chances: Callable[[str, str, str], tuple[float, float]]):
        self._chances = chances
        self.asked: list[str] = []

    @property
    def identity(self) -> Identity:
        return {"engine": "table"}

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        self.asked += prompts
        chances = [self._chance(prompt, letter) for prompt, letter in zip(prompts, continuations, strict=True)]
        return [Score(math.log(chance) if chance else -math.inf, 1, 2) for chance in chances]

    def _chance(self, prompt: str, letter: str) -> float:
        last = prompt.rsplit("\nReply A: ", 1)[1]
        first, rest = last.split("\nReply B: ", 1)
        second, rule = rest.split("\nRule: ", 1)
        return self._chances(first, second, rule)[(" A", " B").index(letter)]


def in_turn(*answers: str) -> ScriptedCompleter:
    number: Iterator[int] = count()
    return ScriptedCompleter(lambda conversation: answers[next(number) % len(answers)])


def compared(run: Run, judge: TableJudge, *answers: str, prompts: sites.PromptsConfig = ONE_PROMPT, **settings: object) -> Dataset:
    config = AIPreferencesConfig(**{**WHOLE, **settings})
    return ai_preferences(config, completer=in_turn(*answers), judge=judge, prompts=sites.prompts(prompts, run=run), run=run)


def test_a_pair_by_hand(run: Run) -> None:
    """a first: .6 and .2, so 3/4 for it; b first: .3 and .1, so 1/4 for a. Mean 1/2: the first is chosen. First place: (.75 + .75) / 2."""
    judge = TableJudge(lambda first, second, rule: (0.6, 0.2) if first == "a" else (0.3, 0.1))
    made = compared(run, judge, "a", "b")
    [row] = made.preferences("train")
    assert (row.chosen, row.rejected, row.facts["probability"]) == ("a", "b", "0.500000")
    facts = made.manifest.facts
    assert facts["first_place"]["estimate"] == pytest.approx(0.75) and facts["consistent"]["estimate"] == 0
    assert facts["mean_mass"] == pytest.approx(0.4) and facts["near_ties"] == 1
    assert facts["sentences"][0].startswith("The judge gives the answer shown first a probability of 0.75")


def test_the_likelier_is_chosen_whatever_its_place(run: Run) -> None:
    """First order: .2 and .8 for the pair (a, b), second (b first): .9 and .1. For b: (.8 + .9) / 2 = .85; places: (.2 + .9) / 2."""
    judge = TableJudge(lambda first, second, rule: (0.2, 0.8) if first == "a" else (0.9, 0.1))
    made = compared(run, judge, "a", "b")
    [row] = made.preferences("train")
    assert (row.chosen, row.rejected, row.facts["probability"]) == ("b", "a", "0.850000")
    [reading] = json.loads(row.facts["readings"])
    assert reading["probability"] == 0.85 and reading["orders"] == [0.8, 0.9] and row.facts["principles"] == reading["principle"]
    assert made.manifest.facts["first_place"]["estimate"] == pytest.approx(0.55)
    assert made.manifest.facts["consistent"]["estimate"] == 1 and row.annotator.startswith("judge ")
    assert row.prompt[-1].content == "Where are the logs?"


def test_every_two_different_answers(run: Run) -> None:
    """Three answers, two of them alike: pairs (a, b), (a, a), (b, a); the alike are left out and counted, so is an empty one."""
    judge = TableJudge(lambda first, second, rule: (0.5, 0.5))
    made = compared(run, judge, "a", "b", "a", answers=3)
    assert len(made.preferences("train")) == 2
    assert made.manifest.facts["not_compared"] == {"of identical answers": 1, "unreadable verdict": 0}
    with pytest.raises(UsageError, match="1 with an empty answer"):
        compared(run, judge, "a", " ", prompts=sites.PromptsConfig(questions=("And now?",)))


def test_several_principles_judge_one_pair(run: Run) -> None:
    """One rule gives .9, all others .5: over all fourteen the mean is (.9 + 13 * .5) / 14."""
    judge = TableJudge(lambda first, second, rule: _for("a", first, 0.9) if "by a child" in rule else (0.5, 0.5))
    made = compared(run, judge, "a", "b", principles_per_pair=99)
    [row] = made.preferences("train")
    assert float(row.facts["probability"]) == pytest.approx((0.9 + 13 * 0.5) / 14, abs=1e-6)
    assert len(set(row.facts["principles"].split(","))) == 14


def _for(answer: str, first: str, p: float) -> tuple[float, float]:
    return (p, 1 - p) if first == answer else (1 - p, p)


def test_the_seed_draws_the_principle(run: Run) -> None:
    judge = TableJudge(lambda first, second, rule: (0.5, 0.5))
    questions = sites.PromptsConfig(questions=tuple(f"Question {n}?" for n in range(30)))
    rows = compared(run, judge, "a", "b", prompts=questions).preferences("train")
    assert len({row.facts["principles"] for row in rows}) > 5
    again = ai_preferences(
        AIPreferencesConfig(**WHOLE), completer=in_turn("a", "b"), judge=judge, prompts=sites.prompts(questions, run=run), run=run
    )
    assert again.preferences("train") == rows


def test_held_out_prompts(run: Run) -> None:
    """A fifth of ten prompts; all pairs of a prompt are in one split."""
    questions = sites.PromptsConfig(questions=tuple(f"Question {n}?" for n in range(10)))
    judge = TableJudge(lambda first, second, rule: (0.5, 0.5))
    made = compared(run, judge, "a", "b", "c", prompts=questions, answers=3, test_share=0.2)
    asked = {split: {row.prompt[0].content for row in made.preferences(split)} for split in ("train", "test")}
    assert (len(asked["train"]), len(asked["test"])) == (8, 2) and not asked["train"] & asked["test"]
    assert made.manifest.facts["rows"] == {"train": 24, "test": 6}


def test_reasons_come_first_and_hold_the_judge_back(run: Run) -> None:
    """.99 in both orders becomes .6; the reasons of each order stand in the facts, and the question ends after them."""
    judge = TableJudge(lambda first, second, rule: _for("a", first, 0.99))
    thinker = ScriptedCompleter(lambda c: f"{c.messages[0].content.rsplit('Reply A: ', 1)[1][0]} is first. ")
    config = AIPreferencesConfig(**WHOLE, reasoning=True)
    asked = sites.prompts(ONE_PROMPT, run=run)
    made = ai_preferences(config, completer=in_turn("a", "b"), judge=judge, reasoner=thinker, prompts=asked, run=run)
    [row] = made.preferences("train")
    assert row.chosen == "a" and float(row.facts["probability"]) == pytest.approx(0.6)
    assert json.loads(row.facts["readings"])[0]["reasons"] == ["a is first.", "b is first."]
    assert judge.asked[0].endswith("Reasons: a is first.\nBetter reply:")
    assert judge.asked[-1].endswith("Reasons: b is first.\nBetter reply:")
    with pytest.raises(UsageError, match="cannot write reasons") as told:
        ai_preferences(config, completer=in_turn("a", "b"), judge=judge, prompts=asked, run=run)
    assert "--reasoner" in told.value.fix


def test_examples_come_before_the_question(run: Run) -> None:
    judge = TableJudge(lambda first, second, rule: (0.5, 0.5))
    compared(run, judge, "a", "b", examples=2)
    assert judge.asked[0].count("Request: ") == 3 and judge.asked[0].count("Better reply: ") == 2
    assert judge.asked[0].endswith("\nBetter reply:") and "Reasons:" not in judge.asked[0]


def test_a_judge_without_a_verdict(run: Run) -> None:
    """One prompt's log-probabilities are all -inf: that pair is left out and counted; where it is every pair, there is nothing to learn."""
    questions = sites.PromptsConfig(questions=("One?", "Two?"))
    judge = TableJudge(lambda first, second, rule: (0.0, 0.0) if "a" in (first, second) else (0.5, 0.5))
    made = compared(run, judge, "a", "b", "c", "d", prompts=questions)
    assert len(made.preferences("train")) == 1 and made.manifest.facts["not_compared"] == {"unreadable verdict": 1}
    with pytest.raises(UsageError, match="No two answers could be compared: 1 unreadable verdict"):
        compared(run, TableJudge(lambda first, second, rule: (0.0, 0.0)), "a", "b")


@pytest.mark.slow
def test_the_real_model_as_judge(smollm2: Model, run: Run) -> None:
    """A clear case, both orders: the answer that helps beats noise on average over principles, and its liking for a place is a number."""

    class Two(ScriptedCompleter):
        def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
            good, bad = "Boil them for eight minutes, then put them into cold water.", "No no no no banana the the of."
            return [Answer(good if i % 2 else bad) for i in range(len(conversations))]

    config = AIPreferencesConfig(prompts=4, test_share=0, principles_per_pair=4)
    made = ai_preferences(config, completer=Two(lambda c: ""), judge=TorchEngine(smollm2), run=run)
    facts = made.manifest.facts
    assert len(made.preferences("train")) == 4 and 0 < facts["first_place"]["estimate"] < 1 and facts["mean_mass"] > 0.2
    reasoned = AIPreferencesConfig(prompts=2, test_share=0, reasoning=True)
    rows = ai_preferences(reasoned, completer=Two(lambda c: ""), judge=TorchEngine(smollm2), run=run).preferences("train")
    assert all(0.5 <= float(row.facts["probability"]) <= 0.6 for row in rows)
    assert any(json.loads(row.facts["readings"])[0]["reasons"] for row in rows)
