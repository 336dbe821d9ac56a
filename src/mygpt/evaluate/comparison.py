"""Arms side by side on one set of questions: means, paired intervals, the best arm, and the cheapest one that keeps up with it.

Cheapest first: prompting, then retrieval, then tuning. An arm keeps up when the interval of best - arm reaches down to zero.
Intervals are of 95 % each and not corrected for the number of arms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mygpt.metrics.bootstrap import Interval, bootstrap_mean, interval_is_reliable, paired_bootstrap

ARMS = ("base_zero_shot", "base_few_shot", "base_retrieval", "tuned", "tuned_retrieval")  # cheapest first
TUNED_ARMS = ("tuned", "tuned_retrieval")
MIN_PASSAGES = 10  # an interval over fewer independent places is not worth its name


@dataclass(frozen=True)
class Comparison:
    """`scores[arm][i]` is the token F1 of one arm on item i; `passages[i]` is where item i comes from."""

    scores: Mapping[str, Sequence[float]]
    passages: Sequence[str]
    num_resamples: int = 10_000
    seed: int = 0
    order: Sequence[str] = ARMS  # of all arms, cheapest first

    @property
    def arms(self) -> list[str]:
        return [arm for arm in self.order if arm in self.scores]

    @property
    def num_items(self) -> int:
        return len(self.passages)

    @property
    def num_passages(self) -> int:
        return len(set(self.passages))

    @property
    def reliable(self) -> bool:
        """Whether the intervals deserve their level: passages are what was drawn independently."""
        return interval_is_reliable(self.num_passages)

    def enough(self, min_items: int) -> bool:
        """Whether there is enough to name a best arm."""
        return self.num_items >= min_items and self.num_passages >= min(MIN_PASSAGES, min_items)

    def mean(self, arm: str) -> float:
        return sum(self.scores[arm]) / self.num_items

    def interval(self, arm: str) -> Interval:
        return bootstrap_mean(self.scores[arm], clusters=self.passages, num_resamples=self.num_resamples, seed=self.seed)

    def difference(self, arm: str, other: str) -> Interval:
        """Of arm - other, over the same items."""
        return paired_bootstrap(
            self.scores[arm], self.scores[other], clusters=self.passages, num_resamples=self.num_resamples, seed=self.seed
        )

    @cached_property
    def best(self) -> str:
        """The highest mean; of equals the cheapest."""
        return max(self.arms, key=lambda arm: (round(self.mean(arm), 12), -self.arms.index(arm)))

    @cached_property
    def cheapest(self) -> str:
        """The first arm, cheapest first, that is not significantly worse than the best."""
        return next(arm for arm in self.arms if not self.difference(self.best, arm).above_zero)
