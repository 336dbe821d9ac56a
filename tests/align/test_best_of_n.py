"""Best of n: the best is given, ties go to the first, and its KL stays within the bound."""

import math
from collections.abc import Sequence

import pytest

from mygpt.align.best_of_n import BestOfN, kl_bound
from mygpt.align.rewards import NamedReward
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.errors import UsageError
from mygpt.infer.protocols import Answer, Identity, Sampling

ASKED = [Conversation((Message("user", text),)) for text in ("a", "b")]
DRAWN = Sampling(temperature=1.0)
LENGTH = NamedReward("length", lambda prompt, answer: len(answer.text))


class Counting:
    """Answers with the question, as often as it was asked."""

    @property
    def identity(self) -> Identity:
        return {"engine": "counting"}

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        times: dict[str, int] = {}
        found = []
        for one in conversations:
            times[one.question] = times.get(one.question, 0) + 1
            found.append(Answer(one.question * times[one.question]))
        return found


def test_the_best_is_given() -> None:
    assert [a.text for a in BestOfN(Counting(), LENGTH, n=4).complete(ASKED, DRAWN)] == ["aaaa", "bbbb"]
    assert [a.text for a in BestOfN(Counting(), LENGTH, n=1).complete(ASKED, Sampling())] == ["a", "b"]
    shortest = NamedReward("shortest", lambda prompt, answer: -min(len(answer.text), 2))
    assert [a.text for a in BestOfN(Counting(), shortest, n=4).complete(ASKED, DRAWN)] == ["a", "b"]
    alike = NamedReward("alike", lambda prompt, answer: 0.0)
    assert [a.text for a in BestOfN(Counting(), alike, n=3).complete(ASKED, DRAWN)] == ["a", "b"]


def test_identity_names_all_three() -> None:
    assert BestOfN(Counting(), LENGTH, n=4).identity == {
        "best_of": 4,
        "reward": {"reward": "function", "name": "length"},
        "completer": {"engine": "counting"},
    }


def test_greedy_answers_are_refused() -> None:
    with pytest.raises(UsageError, match="4 answers at temperature 0"):
        BestOfN(Counting(), LENGTH, n=4).complete(ASKED, Sampling())
    with pytest.raises(UsageError, match="best of 0"):
        BestOfN(Counting(), LENGTH, n=0)


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_kl_is_within_the_bound(n: int) -> None:
    """Exactly: of k equally likely answers with k rewards, the i-th best is the best of n with probability (i/k)^n - ((i-1)/k)^n."""

    def exact(k: int) -> float:
        chances = [(i / k) ** n - ((i - 1) / k) ** n for i in range(1, k + 1)]
        return sum(p * math.log(p * k) for p in chances if p)

    assert exact(10) <= exact(100) <= kl_bound(n) + 1e-12
    assert exact(100_000) == pytest.approx(kl_bound(n), abs=1e-4)
    assert kl_bound(4) == pytest.approx(0.63629, abs=1e-5)
