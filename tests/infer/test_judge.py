"""Verdicts from log-probabilities by hand, both orders, the written ones read strictly, and one from the real model."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from mygpt.artifacts.model import Model
from mygpt.core.digest import digest_value
from mygpt.core.errors import UsageError
from mygpt.infer.judge import Comparison, ModelJudge, Reading, Wording
from mygpt.infer.protocols import Identity, Score
from mygpt.infer.remote_scorer import RemoteScorer
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.load import load_lm
from tests.infer.test_remote import Reply, Site, site, waits  # noqa: F401
from tests.infer.test_remote_scorer import echoed

SHORT = Wording(compare="{prompt}|{first}|{second}>", grade="{prompt}|{answer}>")


class TableScorer:
    """The chance of each continuation after a prompt, as a function says."""

    def __init__(self, chances: Callable[[str], Sequence[float]], verdicts: Sequence[str] = (" A", " B")):
        self._chances, self._verdicts = chances, list(verdicts)
        self.prompts: list[str] = []

    @property
    def identity(self) -> Identity:
        return {"engine": "table"}

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        self.prompts += prompts
        chances = [self._chances(p)[self._verdicts.index(c)] for p, c in zip(prompts, continuations, strict=True)]
        return [Score(math.log(chance) if chance else -math.inf, 1, 2) for chance in chances]


# -- pairs ----------------------------------------------------------------------------------------------------------------


def test_a_pair_by_hand() -> None:
    """Order 1: .6 and .2, so 3/4 for a. Order 2 (b first): .3 and .1, so 1/4 for a. Mean 1/2; the judge likes the first place."""
    scorer = TableScorer(lambda prompt: {"q|a|b>": (0.6, 0.2), "q|b|a>": (0.3, 0.1)}[prompt])
    [made] = ModelJudge(scorer=scorer, wording=SHORT).compare(["q"], ["a"], ["b"])
    assert made.forward.value == pytest.approx(0.75) and made.forward.mass == pytest.approx(0.8)
    assert made.backward.value == pytest.approx(0.25) and made.backward.mass == pytest.approx(0.4)
    assert made.preference == pytest.approx(0.5)
    assert (made.consistent, made.winner) == (False, "tie")
    assert scorer.prompts == ["q|a|b>"] * 2 + ["q|b|a>"] * 2


def test_a_server_that_echoes_log_probabilities_is_constrained_too(site: Site) -> None:  # noqa: F811
    """The figures of the pair by hand, from another address: only the two letters are ever asked for."""
    chances = {"q|a|b> A": 0.6, "q|a|b> B": 0.2, "q|b|a> A": 0.3, "q|b|a> B": 0.1}

    def reply(path: str, body: dict[str, Any]) -> Reply:
        likeliest: list[dict[str, float] | None] = [None, {"x": -0.1}, {"!": -0.1}]
        return echoed(*(([text[:-2], text[-2:], "!"], [None, math.log(chances[text]), -0.1], likeliest) for text in body["prompt"]))

    site.reply = reply
    [made] = ModelJudge(scorer=RemoteScorer(f"{site.address}#judge"), wording=SHORT).compare(["q"], ["a"], ["b"])
    assert (made.forward.value, made.backward.value, made.forward.mass) == pytest.approx((0.75, 0.25, 0.8))


def test_swapping_the_answers_mirrors_the_verdict() -> None:
    """A judge with taste (more `x`) and a liking for the first place: the preference for a is 1 - that for b, whoever is named first."""

    def chances(prompt: str) -> tuple[float, float]:
        _, first, second = prompt[:-1].split("|")
        z = 0.8 * (first.count("x") - second.count("x")) + 0.5
        return 1 / (1 + math.exp(-z)), 1 / (1 + math.exp(z))

    judge = ModelJudge(scorer=TableScorer(chances), wording=SHORT)
    [there] = judge.compare(["q"], ["xxx"], ["x"])
    [back] = judge.compare(["q"], ["x"], ["xxx"])
    assert there.preference is not None and back.preference is not None
    assert there.preference == pytest.approx(1 - back.preference) and there.preference > 0.8
    assert (there.winner, back.winner, there.consistent) == ("a", "b", True)
    [same] = judge.compare(["q"], ["x"], ["x"])
    assert same.preference == pytest.approx(0.5) and same.consistent is False


@pytest.mark.parametrize(
    ("forward", "backward", "preference", "consistent", "winner"),
    [
        (0.9, 0.7, 0.8, True, "a"),
        (0.1, 0.3, 0.2, True, "b"),
        (0.9, 0.3, 0.6, False, "tie"),
        (0.5, 0.5, 0.5, True, "tie"),
        (0.5, 0.9, 0.7, False, "tie"),
        (1.0, None, None, None, None),
        (None, 0.0, None, None, None),
    ],
)
def test_what_two_readings_make(forward, backward, preference, consistent, winner) -> None:
    made = Comparison(Reading(forward), Reading(backward))
    assert made.preference == (None if preference is None else pytest.approx(preference))
    assert (made.consistent, made.winner) == (consistent, winner)


MT_BENCH = Wording(compare="{prompt}|{first}|{second}>", letters=(" A", " B", " C"))


@pytest.mark.parametrize(
    ("first_order", "second_order", "winner", "consistent"),
    [  # MT-bench: a wins or loses only where both orders say so; the second order is written about b and a
        ("[[A]]", "[[B]]", "a", True),
        ("[[B]]", "[[A]]", "b", True),
        ("[[A]]", "[[A]]", "tie", False),
        ("[[B]]", "[[B]]", "tie", False),
        ("[[C]]", "[[C]]", "tie", True),
        ("[[A]]", "[[C]]", "tie", False),
        ("[[C]]", "[[A]]", "tie", False),
        ("[[D]]", "[[B]]", None, None),
        ("[[A]]", "error", None, None),
    ],
)
def test_mt_benchs_verdicts_of_two_orders(first_order: str, second_order: str, winner: str | None, consistent: bool | None) -> None:
    judge = ModelJudge(completer=ScriptedCompleter(lambda c: first_order if c.question == "q|a|b>" else second_order), wording=MT_BENCH)
    [made] = judge.compare(["q"], ["a"], ["b"])
    assert (made.winner, made.consistent) == (winner, consistent)


def test_a_tie_counts_half_for_each() -> None:
    """Order 1: .3 .1 .4 of .8, so 3/8 + 1/4 = 5/8 for a. Order 2, b first: .1 .1 .2 of .4, so 1/4 + 1/4 = 1/2."""
    scorer = TableScorer(lambda prompt: {"q|a|b>": (0.3, 0.1, 0.4), "q|b|a>": (0.1, 0.1, 0.2)}[prompt], MT_BENCH.letters)
    [made] = ModelJudge(scorer=scorer, wording=MT_BENCH).compare(["q"], ["a"], ["b"])
    assert (made.forward.value, made.backward.value) == (pytest.approx(5 / 8), pytest.approx(1 / 2))
    assert made.forward.mass == pytest.approx(0.8)


def test_a_verdict_that_cannot_be() -> None:
    certain = ModelJudge(scorer=TableScorer(lambda prompt: (0.25, 0.0)), wording=SHORT).compare(["q"], ["a"], ["b"])[0]
    assert (certain.forward.value, certain.backward.value, certain.forward.mass) == (1.0, 0.0, 0.25)
    none = ModelJudge(scorer=TableScorer(lambda prompt: (0.0, 0.0)), wording=SHORT).compare(["q"], ["a"], ["b"])[0]
    assert none.preference is None and none.forward.value is None
    broken = ModelJudge(scorer=TableScorer(lambda prompt: (0.5, math.nan)), wording=SHORT).compare(["q"], ["a"], ["b"])[0]
    assert broken.preference is None and broken.winner is None


def test_braces_and_backslashes_in_answers_stay_text() -> None:
    scorer = TableScorer(lambda prompt: (0.5, 0.5))
    ModelJudge(scorer=scorer, wording=SHORT).compare(["{second} \\1"], ["{prompt}{criteria}"], ["{first}"])
    assert scorer.prompts[0] == "{second} \\1|{prompt}{criteria}|{first}>"


# -- grades ---------------------------------------------------------------------------------------------------------------


def test_a_grade_is_the_expectation_over_the_scale() -> None:
    """(.05 * 1 + .05 * 2 + .1 * 3 + .2 * 4 + .1 * 5) / .5 = 3.5."""
    scorer = TableScorer(lambda prompt: (0.05, 0.05, 0.1, 0.2, 0.1), Wording().digits)
    [grade] = ModelJudge(scorer=scorer, wording=SHORT).grade(["q"], ["a"])
    assert grade.value == pytest.approx(3.5)
    assert grade.probabilities == pytest.approx((0.1, 0.1, 0.2, 0.4, 0.2)) and grade.reading.mass == pytest.approx(0.5)
    assert scorer.prompts == ["q|a>"] * 5
    [lost] = ModelJudge(scorer=TableScorer(lambda p: (0.0,) * 5, Wording().digits), wording=SHORT).grade(["q"], ["a"])
    assert (lost.value, lost.probabilities) == (None, ())


TEN = Wording(digits=tuple(f" {n}" for n in range(1, 11)))


def test_a_scale_to_ten() -> None:
    """The prompt names its end. " 1" has .2, of which .15 go on with "0": so 1 has .05, 10 has .15 and 7 has .3: 3.65 / .5 = 7.3."""
    assert "from 1 (useless) to 10 (excellent)" in TEN.fill(TEN.grade, prompt="q", answer="a")
    to_five = Wording().fill(Wording().grade, prompt="q", answer="{highest}")
    assert "a number from 1 to 5." in to_five and "{highest}" in to_five  # that of the answer stays

    class Digits:
        def __init__(self, tokens_of_ten: int):
            self.identity: Identity = {"engine": "digits"}
            self._tokens_of_ten = tokens_of_ten

        def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
            chances = {" 1": 0.2, " 7": 0.3, " 10": 0.15}
            return [
                Score(math.log(chances[c]) if c in chances else -math.inf, self._tokens_of_ten if c == " 10" else 1, len(c))
                for c in continuations
            ]

    [grade] = ModelJudge(scorer=Digits(2), wording=TEN).grade(["q"], ["a"])
    assert grade.value == pytest.approx((0.05 * 1 + 0.3 * 7 + 0.15 * 10) / 0.5)
    assert grade.probabilities[0] == pytest.approx(0.1) and grade.reading.mass == pytest.approx(0.5)
    [one_token] = ModelJudge(scorer=Digits(1), wording=TEN).grade(["q"], ["a"])  # " 10" is a token of its own: nothing is inside " 1"
    assert one_token.value == pytest.approx((0.2 * 1 + 0.3 * 7 + 0.15 * 10) / 0.65)
    written = ModelJudge(completer=ScriptedCompleter(lambda c: "[[10]]"), wording=TEN).grade(["q"], ["a"])[0]
    assert written.value == 10.0


# -- written verdicts -----------------------------------------------------------------------------------------------------


def test_written_verdicts_of_both_orders() -> None:
    """This one always names the longer answer."""

    def longer(conversation) -> str:
        _, first, second = conversation.question[:-1].split("|")
        return "A" if len(first) > len(second) else "B"

    judge = ModelJudge(completer=ScriptedCompleter(longer), wording=SHORT)
    long, short = judge.compare(["q", "q"], ["aaa", "a"], ["a", "aaa"])
    assert (long.preference, long.winner, long.forward.output, long.backward.output) == (1.0, "a", "A", "B")
    assert (short.preference, short.winner, short.forward.mass) == (0.0, "b", None)


@pytest.mark.parametrize("text", ["A", " A\n", "A.", '"A"', "(A)", "[[A]]", "**A**", "**A.**"])
def test_read(text: str) -> None:
    made = ModelJudge(completer=ScriptedCompleter(lambda c: text)).compare(["q"], ["a"], ["b"])[0]
    assert (made.forward.value, made.backward.value, made.winner) == (1.0, 0.0, "tie")  # it always names the first place


@pytest.mark.parametrize("text", ["", "a", "C", "A or B", "Answer A", "AB", "A B", "The better answer is A", "Both", "А", ".A", "A!"])
def test_not_read_and_kept_as_it_was_written(text: str) -> None:
    """Nothing is guessed: neither a tie nor the first letter that looks like one (the last but two is a Cyrillic A)."""
    made = ModelJudge(completer=ScriptedCompleter(lambda c: text)).compare(["q"], ["a"], ["b"])[0]
    assert (made.preference, made.winner, made.forward.output) == (None, None, text)


def test_one_order_alone_is_no_verdict() -> None:
    judge = ModelJudge(completer=ScriptedCompleter(lambda c: "A" if "|a|" in c.question else "hm"), wording=SHORT)
    [made] = judge.compare(["q"], ["a"], ["b"])
    assert (made.forward.value, made.backward.value, made.preference) == (1.0, None, None)


@pytest.mark.parametrize(
    ("text", "grade"), [("4", 4.0), ("(2).", 2.0), ("5\n", 5.0), ("4.5", None), (".5", None), ("6", None), ("3/5", None), ("", None)]
)
def test_written_grades(text: str, grade: float | None) -> None:
    [made] = ModelJudge(completer=ScriptedCompleter(lambda c: text)).grade(["q"], ["a"])
    assert (made.value, made.reading.output) == (grade, text)
    assert sum(made.probabilities) == (0 if grade is None else 1)


# -- the judge itself -----------------------------------------------------------------------------------------------------


def test_identity_says_what_was_asked_of_whom() -> None:
    scorer, completer = TableScorer(lambda p: (0.5, 0.5)), ScriptedCompleter(lambda c: "A")
    made = [
        ModelJudge(scorer=scorer),
        ModelJudge(completer=completer),
        ModelJudge(completer=completer, max_tokens=16),
        ModelJudge(scorer=scorer, wording=replace(Wording(), criteria="short")),
    ]
    assert made[0].identity["scorer"] == {"engine": "table"} and "Better answer:" in made[0].identity["wording"]["compare"]
    assert len({digest_value(judge.identity) for judge in made}) == 4
    assert digest_value(ModelJudge(scorer=scorer).identity) == digest_value(made[0].identity)


def test_wrong_wordings_and_tools_are_refused() -> None:
    with pytest.raises(UsageError, match=r"`compare` has no \{second\}"):
        Wording(compare="{prompt} {first}")
    with pytest.raises(UsageError, match=r"`grade` has no \{answer\}"):
        Wording(grade="{prompt}")
    for letters in ((" A", "A"), ("A", "")):
        with pytest.raises(UsageError, match="not distinct"):
            Wording(letters=letters)
    with pytest.raises(UsageError, match="4 letters"):
        Wording(letters=("A", "B", "C", "D"))
    scorer, completer = TableScorer(lambda p: (0.5, 0.5)), ScriptedCompleter(lambda c: "A")
    for tools in ({}, {"scorer": scorer, "completer": completer}):
        with pytest.raises(UsageError, match="one of the two"):
            ModelJudge(**tools)
    with pytest.raises(ValueError):
        ModelJudge(scorer=scorer).compare(["q"], ["a", "b"], ["c"])
    assert ModelJudge(scorer=scorer).compare([], [], []) == [] == ModelJudge(scorer=scorer).grade([], [])


def test_the_real_model_against_a_plain_forward_pass(smollm2: Model) -> None:
    """Preference and mass are those of transformers' own next-token distribution after the same prompt."""
    real = load_lm(smollm2, dtype=torch.float32)
    wording = Wording(compare="{prompt} A: {first} B: {second} The better answer is")
    question, good, bad = "Capital of France?", "Paris.", "Yellow."
    [made] = ModelJudge(scorer=TorchEngine(smollm2, loaded=real), wording=wording).compare([question], [good], [bad])
    letters = [real.tokenizer.encode(letter, add_special_tokens=False) for letter in wording.letters]
    assert [len(ids) for ids in letters] == [1, 1]
    readings = []
    for first, second in ((good, bad), (bad, good)):
        ids = real.tokenizer.encode(f"{question} A: {first} B: {second} The better answer is", add_special_tokens=False)
        with torch.inference_mode():
            chances = real.module(torch.tensor([ids])).logits[0, -1].softmax(-1)
        readings.append([float(chances[letter]) for [letter] in letters])
    assert made.forward.value == pytest.approx(readings[0][0] / sum(readings[0]), abs=1e-4)
    assert made.backward.value == pytest.approx(readings[1][1] / sum(readings[1]), abs=1e-4)
    assert (made.forward.mass, made.backward.mass) == pytest.approx((sum(readings[0]), sum(readings[1])), rel=1e-3)
