"""A reward that fails or gives no number is named, with what it was asked."""

import math
from collections.abc import Sequence

import pytest

from mygpt.align.reward_ensemble import RewardEnsemble
from mygpt.align.rewards import NamedReward
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.errors import MygptError, Refused
from mygpt.infer.protocols import Answer
from mygpt.infer.rewards import rewards_of

PROMPTS = [Conversation((Message("user", "How many?"),)), Conversation((Message("user", "And now?"),))]
ANSWERS = [Answer("One."), Answer("Nobody knows.")]


def length(prompt: Conversation, answer: Answer) -> float:
    return len(answer.text)


class Batched:
    def __call__(self, prompt: Conversation, answer: Answer) -> float:
        raise AssertionError("`each` is there")

    def each(self, prompts: Sequence[Conversation], answers: Sequence[Answer]) -> list[float]:
        return [1.0 / (5 - len(answer.text)) for answer in answers]


def test_one_by_one_or_all_at_once() -> None:
    assert rewards_of(length, PROMPTS, ANSWERS) == [4.0, 13.0]
    assert rewards_of(Batched(), PROMPTS, ANSWERS) == [1.0, -0.125]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_number(value: float) -> None:
    with pytest.raises(MygptError, match=f"is {value}") as told:
        rewards_of(lambda prompt, answer: value if "Nobody" in answer.text else 0.0, PROMPTS, ANSWERS)
    assert '"And now?"' in told.value.what and '"Nobody knows."' in told.value.what


def test_raises() -> None:
    def broken(prompt: Conversation, answer: Answer) -> float:
        return float(answer.text)

    with pytest.raises(MygptError, match="ValueError: could not convert") as told:
        rewards_of(broken, PROMPTS, ANSWERS)
    assert '"How many?"' in told.value.what
    with pytest.raises(MygptError, match="failed on 2 answers: ZeroDivisionError") as told:
        rewards_of(Batched(), PROMPTS, [Answer("x"), Answer("Three")])
    assert '"And now?"' in told.value.what and '"Three"' in told.value.what and '"x"' not in told.value.what


def test_which_of_several_rewards_it_was() -> None:
    ensemble = RewardEnsemble([NamedReward("sound", lambda prompt, answer: 1.0), NamedReward("broken", lambda prompt, answer: math.nan)])
    with pytest.raises(MygptError, match=r"is nan\. .* By: .*broken.*\.") as told:
        rewards_of(ensemble, PROMPTS, ANSWERS)
    assert "sound" not in told.value.what


class Forgetful(Batched):
    def each(self, prompts: Sequence[Conversation], answers: Sequence[Answer]) -> list[float]:
        return [1.0 for answer in answers if answer.text]


class Pairwise(Batched):
    def each(self, prompts: Sequence[Conversation], answers: Sequence[Answer]) -> list[float]:
        return [1.0] * min(len(answers), 1)


def test_many_at_once_have_a_number_each() -> None:
    """The empty answer is the one at fault; where each alone gets its number, that is said."""
    with pytest.raises(MygptError, match="gave 1 values for 2 answers") as told:
        rewards_of(Forgetful(), PROMPTS, [Answer("One."), Answer("")])
    assert 'Asked: "And now?". Answered: "".' in told.value.what
    with pytest.raises(MygptError, match=r"gave 1 values for 2 answers\. Each of them alone gets its number"):
        rewards_of(Pairwise(), PROMPTS, ANSWERS)


def test_a_reward_may_refuse_in_its_own_words() -> None:
    def refuses(prompt: Conversation, answer: Answer) -> float:
        raise Refused("No tests.", fix="Give some.")

    with pytest.raises(Refused, match=r"No tests\."):
        rewards_of(refuses, PROMPTS, ANSWERS)
