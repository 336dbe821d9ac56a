"""Best of n: the best is given, ties go to the first, and its KL stays within the bound."""

import math
from collections.abc import Sequence
from statistics import fmean

import pytest

from mygpt.align.best_of_n import BestOfN, BestOfNConfig, best_of_n, gained, kl_bound
from mygpt.align.rewards import NamedReward
from mygpt.artifacts.dataset import Conversation, Dataset, Message
from mygpt.core.errors import MygptError, Refused, UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer, Identity, Sampling
from mygpt.metrics.bootstrap import paired_bootstrap
from tests.align import sites

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


# -- the recipe --------------------------------------------------------------------------------------------------------------


def test_first_and_best_of_each_prompt(run: Run) -> None:
    """Two of four prompts, at even distances, three answers each: the third is the longest, by twice the question."""
    config = BestOfNConfig(n=3, max_prompts=2, split="train")
    made = best_of_n(config, completer=Counting(), dataset=prompts_dataset(run), reward=LENGTH, run=run)
    for row in made.rows:
        assert (row["first_answer"], row["answer"]) == (row["question"], row["question"] * 3)
        assert (row["first_reward"], row["reward"], row["gain"]) == tuple(len(row["question"]) * k for k in (1, 3, 2))
    facts = made.manifest.facts
    mean = fmean(len(row["question"]) for row in made.rows)
    assert len(made.rows) == 2 and facts["gain"] == pytest.approx(2 * mean) and facts["kl_bound"] == kl_bound(3)
    low, high = facts["gain_interval"]
    assert min(row["gain"] for row in made.rows) <= low <= facts["gain"] <= high <= max(row["gain"] for row in made.rows)
    assert f"the first {mean:.3g}: +{2 * mean:.3g} (95 % interval" in facts["sentences"][0] and "unreliable" in facts["sentences"][0]
    assert made.manifest.tools == {"completer": {"engine": "counting"}, "reward": LENGTH.identity}
    assert facts["model"]["best_of"] == 3 and facts["primary"] == "reward"


def test_the_interval_is_that_of_the_differences(run: Run) -> None:
    """Forty prompts whose best is 0 or 1 better: as the paired bootstrap of the same numbers says."""
    rows = [{"reward": 1.0 + n % 2, "first_reward": 1.0} for n in range(40)]
    found = gained(rows, n=4)
    expected = paired_bootstrap([1.0 + n % 2 for n in range(40)], [1.0] * 40)
    assert (found["gain"], found["gain_interval"]) == (0.5, [expected.low, expected.high])
    assert "unreliable" not in found["sentences"][0] and 0.3 < expected.low < 0.5 < expected.high < 0.7


def test_a_reward_of_the_settings_and_what_is_refused(run: Run) -> None:
    with pytest.raises(UsageError, match="no rows in the split `test`"):
        best_of_n(BestOfNConfig(), completer=Counting(), dataset=prompts_dataset(run), reward=LENGTH, run=run)
    with pytest.raises(Refused, match="no number in the reference answer"):
        best_of_n(BestOfNConfig(split="train"), completer=Counting(), dataset=prompts_dataset(run), run=run)
    nan = NamedReward("nan", lambda prompt, answer: math.nan)
    with pytest.raises(MygptError, match="The reward of an answer is nan"):
        best_of_n(BestOfNConfig(split="train"), completer=Counting(), dataset=prompts_dataset(run), reward=nan, run=run)


def prompts_dataset(run: Run) -> Dataset:
    return sites.prompts(sites.PromptsConfig(), run=run)


# -- its KL ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_kl_is_within_the_bound(n: int) -> None:
    """Exactly: of k equally likely answers with k rewards, the i-th best is the best of n with probability (i/k)^n - ((i-1)/k)^n."""

    def exact(k: int) -> float:
        chances = [(i / k) ** n - ((i - 1) / k) ** n for i in range(1, k + 1)]
        return sum(p * math.log(p * k) for p in chances if p)

    assert exact(10) <= exact(100) <= kl_bound(n) + 1e-12
    assert exact(100_000) == pytest.approx(kl_bound(n), abs=1e-4)
    assert kl_bound(4) == pytest.approx(0.63629, abs=1e-5)
