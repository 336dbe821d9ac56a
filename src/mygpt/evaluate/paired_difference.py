"""One metric of one task: how each model did, and how far a model is from its baseline on the same items.

    score(task, label, metric)                  the mean with its interval
    difference(task, label, baseline, metric)   after - before over the same items: interval, flips, p, power

0/1 scores of independent items: Wilson's interval, McNemar's exact test. All else, and items that share a cluster: bootstrap over
clusters, approximate randomisation. Differences have a paired bootstrap interval.

Source: those of `metrics/wilson`, `metrics/mcnemar`, `metrics/bootstrap`, `metrics/randomisation`, `metrics/power`.
We differ: a bootstrap of 0/1 scores that hardly differ draws the same few flips again and again and promises too much; with no flip at all
its interval has no width. There the interval is widened to what Wilson allows for the shares lost and won, one by one. Where all of the
items that share clusters are right, or all wrong, the interval is Wilson's as if each cluster were one item.
"""

import math
from dataclasses import dataclass

import numpy as np

from mygpt.evaluate.same_items import SameItems
from mygpt.metrics.bootstrap import Interval, bootstrap_ratio, sum_clusters
from mygpt.metrics.mcnemar import mcnemar_exact
from mygpt.metrics.power import NORMAL_KURTOSIS, detectable_difference, items_needed, kurtosis_of
from mygpt.metrics.randomisation import approximate_randomisation
from mygpt.metrics.wilson import wilson

EXACT = "McNemar, exact"
LEAST_OVER_CHANCE, LEAST_BELOW_FULL = 0.10, 0.10  # headroom: design, section 6


@dataclass(frozen=True)
class Resampling:
    """How much is drawn, and at which level."""

    level: float = 0.95
    num_resamples: int = 10_000
    seed: int = 0


@dataclass(frozen=True)
class Score:
    interval: Interval
    method: str  # "Wilson", "bootstrap", "bootstrap over 12 clusters"


@dataclass(frozen=True)
class Difference:
    """Model - baseline, as measured: whether more is better is for `higher_is_better` to say."""

    interval: Interval
    p_value: float
    test: str
    won: int  # items on which the model did better
    lost: int
    num_items: int
    num_clusters: int
    sd: float  # of the paired differences, one for each cluster
    kurtosis: float  # of the same
    higher_is_better: bool

    @property
    def gain(self) -> Interval:
        """The same with above zero for better."""
        i = self.interval
        return i if self.higher_is_better else Interval(-i.estimate, -i.high, -i.low)

    def detectable(self, *, level: float = 0.95) -> float:
        """The smallest true difference that so many items show four times in five."""
        return detectable_difference(self.num_clusters, self.sd, level=level, step=self._step, kurtosis=self.kurtosis)

    def needed(self, difference: float, *, level: float = 0.95) -> int:
        """Items (clusters, where items share one) that show a true `difference` four times in five."""
        return items_needed(difference, self.sd, level=level, step=self._step, kurtosis=self.kurtosis)

    @property
    def _step(self) -> float:
        """Of the test, in items: an exact one pays for moving by whole items."""
        return 1.0 if self.test == EXACT else 0.0


def score(task: SameItems, label: str, metric: str, resampling: Resampling) -> Score:
    task = task.scored(metric, label)
    values_N, weights_N = task.values(label, metric), task.weights(metric)
    if _independent_shares(task, values_N, weights_N):
        return Score(wilson(int(values_N.sum()), len(values_N), level=resampling.level), "Wilson")
    interval = bootstrap_ratio(
        (values_N * weights_N).tolist(),
        weights_N.tolist(),
        clusters=task.clusters,
        num_resamples=resampling.num_resamples,
        level=resampling.level,
        seed=resampling.seed,
    )
    if np.isin(values_N, (0.0, 1.0)).all() and values_N.min() == values_N.max() and (weights_N == 1).all():
        return Score(wilson(int(task.num_clusters * values_N[0]), task.num_clusters, level=resampling.level), _named("Wilson", task))
    return Score(interval, _named("bootstrap", task))


def difference(task: SameItems, label: str, baseline: str, metric: str, resampling: Resampling, *, beyond: float = 0.0) -> Difference:
    """Over the items that both have a score on. `beyond`: the p-value asks whether the gain differs from this, not from zero."""
    task = task.scored(metric, label, baseline)
    after_N, before_N, weights_N = task.values(label, metric), task.values(baseline, metric), task.weights(metric)
    higher_is_better = task.is_higher_better(metric)
    better_N = after_N > before_N if higher_is_better else after_N < before_N
    won, lost = int(better_N.sum()), int((after_N != before_N).sum() - better_N.sum())
    moved_N = (after_N - before_N) * weights_N
    interval = bootstrap_ratio(
        moved_N.tolist(),
        weights_N.tolist(),
        clusters=task.clusters,
        num_resamples=resampling.num_resamples,
        level=resampling.level,
        seed=resampling.seed,
    )
    shares = _independent_shares(task, np.concatenate([after_N, before_N]), weights_N)
    if shares:
        gain_won, gain_lost = (won, lost) if higher_is_better else (lost, won)
        interval = _at_least_as_wide(interval, gain_won, gain_lost, len(after_N), resampling.level)
    if shares and beyond == 0:
        p_value, test = mcnemar_exact(lost, won), EXACT
    else:
        shift = beyond if higher_is_better else -beyond
        p_value = approximate_randomisation(
            (after_N - shift) * weights_N,
            before_N * weights_N,
            clusters=task.clusters,
            num_samples=resampling.num_resamples,
            seed=resampling.seed,
        )
        test = _named("randomisation", task)
    sd, kurtosis = _spread(task, moved_N / weights_N.mean(), won + lost)
    return Difference(
        interval=interval,
        p_value=p_value,
        test=test,
        won=won,
        lost=lost,
        num_items=len(after_N),
        num_clusters=task.num_clusters,
        sd=sd,
        kurtosis=kurtosis,
        higher_is_better=higher_is_better,
    )


def mean(task: SameItems, label: str, metric: str) -> float:
    task = task.scored(metric, label)
    values_N, weights_N = task.values(label, metric), task.weights(metric)
    return float((values_N * weights_N).sum() / weights_N.sum())


def has_headroom(task: SameItems, baseline: str, metric: str) -> bool | None:
    """Whether the baseline leaves room to rise and is more than chance; None for metrics that are no share of one."""
    values_N = task.scored(metric, baseline).values(baseline, metric)
    if not task.is_higher_better(metric) or values_N.min() < 0 or values_N.max() > 1:
        return None
    floor = task.chance if task.chance is not None and metric == task.primary else 0.0
    share = float(values_N.mean())
    return floor + LEAST_OVER_CHANCE <= share + 1e-9 and share < 1 - LEAST_BELOW_FULL


def _independent_shares(task: SameItems, values: np.ndarray, weights_N: np.ndarray) -> bool:
    return task.num_clusters == len(weights_N) and bool(np.isin(values, (0.0, 1.0)).all() and (weights_N == 1).all())


def _at_least_as_wide(interval: Interval, ups: int, downs: int, n: int, level: float) -> Interval:
    """Square and add the distances to Wilson's limits of the shares that went up and down; the outer of this and the bootstrap."""
    up, down = wilson(ups, n, level=level), wilson(downs, n, level=level)
    below = math.hypot(up.estimate - up.low, down.high - down.estimate)
    above = math.hypot(up.high - up.estimate, down.estimate - down.low)
    middle = interval.estimate
    return Interval(middle, max(-1.0, min(interval.low, middle - below)), min(1.0, max(interval.high, middle + above)))


def _spread(task: SameItems, values_N: np.ndarray, flips: int) -> tuple[float, float]:
    """Standard deviation and kurtosis of the means of clusters. Where nothing moved the first is not 0: as many items again could still
    show three (the rule of three)."""
    clusters_C = sum_clusters(values_N[:, None], task.clusters)[:, 0] * (task.num_clusters / len(values_N))
    if flips == 0:
        return math.sqrt(3 / len(values_N)), len(values_N) / 3
    return (float(clusters_C.std(ddof=1)), kurtosis_of(clusters_C)) if len(clusters_C) > 1 else (float(abs(clusters_C[0])), NORMAL_KURTOSIS)


def _named(method: str, task: SameItems) -> str:
    return method if task.num_clusters == len(task.clusters) else f"{method} over {task.num_clusters} clusters"
