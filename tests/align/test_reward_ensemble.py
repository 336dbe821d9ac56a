"""Mean and disagreement of several rewards, by hand."""

from dataclasses import dataclass

import pytest

from mygpt.align.reward_ensemble import RewardEnsemble
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.errors import MygptError, UsageError
from mygpt.infer.protocols import Answer, Identity

PROMPT = Conversation((Message("user", "Q"),))


@dataclass(frozen=True)
class PerLetter:
    worth: float

    @property
    def identity(self) -> Identity:
        return {"reward": "letters", "worth": self.worth}

    def __call__(self, prompt: Conversation, answer: Answer) -> float:
        return self.worth * len(answer.text)


def test_by_hand() -> None:
    """Two letters: 2, 4 and 12 have mean 6 and standard deviation sqrt((16 + 4 + 36) / 3) = 4.3205."""
    ensemble = RewardEnsemble([PerLetter(1), PerLetter(2), PerLetter(6)])
    assert ensemble(PROMPT, Answer("ab")) == pytest.approx(6)
    assert ensemble.each([PROMPT] * 2, [Answer("ab"), Answer("")]) == pytest.approx([6, 0])
    assert ensemble.disagreement([PROMPT] * 2, [Answer("ab"), Answer("")]) == pytest.approx([4.320494, 0], abs=1e-6)
    assert ensemble.identity["of"] == [{"reward": "letters", "worth": worth} for worth in (1, 2, 6)]


def test_alone_and_broken() -> None:
    with pytest.raises(UsageError, match="An ensemble of 1 cannot disagree"):
        RewardEnsemble([PerLetter(1)])
    with pytest.raises(MygptError, match="reward of an answer is nan"):
        RewardEnsemble([PerLetter(1), PerLetter(float("nan"))])(PROMPT, Answer("ab"))
