"""The rule of `benchmarks/alignment.py`, worked by hand, and that every technique is given as many graded answers."""

from typing import Any

import pytest

from benchmarks.alignment import RULE, Budget, Given, outcome, points
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.infer.protocols import Answer

REQUEST = "Say in one sentence what this text is about.\n\nThe harbour master keeps a ledger of every vessel that enters before sunrise."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The harbour master keeps a ledger of every early vessel.", 3),
        ("The harbour master keeps a ledger. It lists every vessel that came.", 2),  # two sentences
        ("A harbour ledger of each vessel.", 2),  # six words
        ("Somebody writes down who comes in when it is early.", 2),  # none of the text's words
        ("Sentence text about harbour master things here and there.", 2),  # words of the request alone do not count
        ("Yes.", 1),
        ("", 0),
        ("The harbour master keeps\na ledger of every vessel", 2),  # no end of a sentence
    ],
)
def test_points(text: str, expected: int) -> None:
    assert points(REQUEST, text) == expected


def test_an_answer_that_was_cut_has_none() -> None:
    prompt = Conversation((Message("user", REQUEST),))
    text = "The harbour master keeps a ledger of every early vessel."
    assert [RULE(prompt, Answer(text, finish_reason=reason)) for reason in ("stop", "length")] == [3.0, 0.0]


@pytest.mark.parametrize("samples", [1, 4, 8])
def test_every_technique_has_as_many_answers_graded(samples: int) -> None:
    budget, anything = Budget(), Any
    size = Given(anything, anything, anything, budget, anything).rolled(samples)  # type: ignore[arg-type]
    rollouts = size["epochs"] * budget.requests / size["prompts_per_rollout"]
    assert rollouts == budget.rollouts
    assert rollouts * size["prompts_per_rollout"] * samples == budget.requests * budget.samples == 1024


def test_wins_ties_and_losses() -> None:
    prompts = [Conversation((Message("user", REQUEST),))] * 4
    good, short = Answer("The harbour master keeps a ledger of every early vessel."), Answer("Yes.")
    found = outcome(prompts, [short, short, good, good], [good, good, good, short])
    assert found["win_rate"]["estimate"] == (1 + 1 + 0.5 + 0) / 4
    assert found["gain"]["estimate"] == (2 + 2 + 0 - 2) / 4
