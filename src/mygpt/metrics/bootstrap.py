"""Bootstrap intervals: how far a score could have been off, had other questions been drawn.

    paired_bootstrap(after, before)         of mean(after - before), over the same items
    bootstrap_mean(values)                  of one mean
    bootstrap_ratio(sums, weights)          of sum(sums) / sum(weights): bits per byte over pieces of text
    bootstrap_statistic(rows, statistic)    of any function of sums over items: BLEU, F1 of a whole corpus

Whole clusters are drawn, with replacement; an item without a cluster is its own. Questions about one passage, or several answers drawn
for one question, rise and fall together, and drawing them one by one would promise more certainty than there is.

The lower limit is the lower of two, and the upper the higher: the accelerated percentile of the resampled scores (BCa), which sees
skew, and t bootstrap standard errors, which sees scores that rest on few items. Each by itself falls short of 95 % on scores as models
get them: many zeros, or nearly all answers alike. Both take n - 1 for n and Student's t for the normal quantile (so percentiles lie a
little further out: 2.2 % for 2.5 % at 60 items); n counts clusters. No limit lies beyond what resampling reached.

Source: Efron and Tibshirani 1993, "An introduction to the bootstrap", sections 8.3 (drawing what is independent), 12.2 (standard errors)
and 14.3 (BCa); Hesterberg 2015, "What teachers should know about the bootstrap", for the two corrections (expanded percentiles);
differences of pairs as in Koehn 2004, "Statistical significance tests for machine translation evaluation".
We differ: the wider of the two intervals, which is 3 % wider than either as a rule; `benchmarks/statistics.py` measures how often each
holds the truth. One item, or one cluster, gives an interval without width: ask `interval_is_reliable`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from mygpt.metrics.student_t import t_quantile

FEWEST_ITEMS = 30  # below, an interval is printed with the word "unreliable"
DRAWS_AT_ONCE = 100_000  # stays in the processor's cache: twice as fast as all at once


@dataclass(frozen=True)
class Interval:
    """An estimate and the limits of its interval."""

    estimate: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        return self.low > 0

    @property
    def below_zero(self) -> bool:
        return self.high < 0


def interval_is_reliable(n: int) -> bool:
    """Whether an interval over n items (clusters, where items share one) deserves its level."""
    return n >= FEWEST_ITEMS


def paired_bootstrap(
    after: Sequence[float],
    before: Sequence[float],
    *,
    clusters: Sequence[str] = (),
    num_resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Of mean(after - before); `after[i]` and `before[i]` belong to one item."""
    if len(after) != len(before):
        raise ValueError(f"paired values must be as many: {len(after)} and {len(before)}")
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    return bootstrap_mean(differences.tolist(), clusters=clusters, num_resamples=num_resamples, level=level, seed=seed)


def bootstrap_mean(
    values: Sequence[float], *, clusters: Sequence[str] = (), num_resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Interval:
    return bootstrap_ratio(values, [1.0] * len(values), clusters=clusters, num_resamples=num_resamples, level=level, seed=seed)


def bootstrap_ratio(
    sums: Sequence[float],
    weights: Sequence[float],
    *,
    clusters: Sequence[str] = (),
    num_resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    if len(sums) != len(weights):
        raise ValueError(f"as many sums as weights: {len(sums)} and {len(weights)}")
    rows_NK = np.stack([np.asarray(sums, dtype=np.float64), np.asarray(weights, dtype=np.float64)], axis=1)
    return bootstrap_statistic(
        rows_NK, lambda sums_K: sums_K[..., 0] / sums_K[..., 1], clusters=clusters, num_resamples=num_resamples, level=level, seed=seed
    )


def bootstrap_statistic(
    sufficient_NK: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    clusters: Sequence[str] = (),
    num_resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Row i holds what item i adds to K sums; `statistic` maps sums of shape (..., K) to scores of shape (...).

    For the difference of two systems on the same items put their columns side by side, and subtract in `statistic`.
    """
    rows_NK = sum_clusters(np.asarray(sufficient_NK, dtype=np.float64), clusters)
    total_K = rows_NK.sum(axis=0)
    estimate, resampled_R = np.asarray(statistic(total_K)), statistic(resampled_sums(rows_NK, num_resamples, seed))
    left_out_N = statistic(total_K - rows_NK) if len(rows_NK) > 1 else estimate[None]
    return Interval(float(estimate), *map(float, limits(resampled_R, estimate, left_out_N, level)))


def sum_clusters(rows_NK: np.ndarray, clusters: Sequence[str]) -> np.ndarray:
    """One row a cluster, the sum of its items'; without clusters the rows as they are."""
    if not len(rows_NK) or (len(clusters) and len(clusters) != len(rows_NK)):
        raise ValueError(f"nothing to resample: {len(rows_NK)} values, {len(clusters)} clusters")
    if not np.isfinite(rows_NK).all():
        raise ValueError(f"{int((~np.isfinite(rows_NK)).any(axis=1).sum())} of {len(rows_NK)} items have no finite value")
    if not len(clusters):
        return rows_NK
    names, cluster_N = np.unique(np.asarray(clusters), return_inverse=True)
    summed_CK = np.zeros((len(names), rows_NK.shape[1]))
    np.add.at(summed_CK, cluster_N, rows_NK)
    return summed_CK


def resampled_sums(rows_NK: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    """(R, K): the sums of N rows drawn with replacement, R times. How often each row was drawn, times the rows."""
    generator = np.random.default_rng(seed)
    num_rows, summed = len(rows_NK), []
    at_once = max(1, DRAWS_AT_ONCE // num_rows)
    for start in range(0, num_resamples, at_once):
        size = min(at_once, num_resamples - start)
        drawn_RN = generator.integers(0, num_rows, size=(size, num_rows))
        drawn_RN += num_rows * np.arange(size)[:, None]
        times_RN = np.bincount(drawn_RN.ravel(), minlength=size * num_rows).reshape(size, num_rows)
        summed.append(times_RN.astype(np.float64) @ rows_NK)
    return np.concatenate(summed)


def limits(resampled_RX: np.ndarray, estimate_X: np.ndarray, left_out_NX: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Of an interval, or of X at once; `left_out_NX[i]` is the estimate without row i."""
    if len(left_out_NX) < 2:
        return estimate_X, estimate_X
    t = t_quantile((1 - level) / 2, len(left_out_NX) - 1)
    return lower_limit(resampled_RX, estimate_X, left_out_NX, t), -lower_limit(-resampled_RX, -estimate_X, -left_out_NX, t)


def lower_limit(resampled_RX: np.ndarray, estimate_X: np.ndarray, left_out_NX: np.ndarray, t: float) -> np.ndarray:
    """Student's quantile `t` of N - 1 degrees of freedom, below 0, says how far down."""
    n, sorted_RX = len(left_out_NX), np.sort(resampled_RX, axis=0)
    if not (np.isfinite(sorted_RX[[0, -1]]).all() and np.isfinite(left_out_NX).all()):
        raise ValueError("some resampled scores are not finite: let `statistic` say what a score without counts is")
    z = math.sqrt(n / (n - 1)) * t
    by_error_X = estimate_X + z * resampled_RX.std(axis=0)
    by_percentile_X = _at(sorted_RX, _normal_cdf(_accelerated(z, sorted_RX, estimate_X, left_out_NX)))
    return np.clip(np.minimum(by_error_X, by_percentile_X), sorted_RX[0], sorted_RX[-1])


def _accelerated(z: float, sorted_RX: np.ndarray, estimate_X: np.ndarray, left_out_NX: np.ndarray) -> np.ndarray:
    """z corrected for bias (how unevenly resampled scores lie about the estimate; ties by half) and for skew."""
    tie_X = 1e-9 * (sorted_RX[-1] - sorted_RX[0])
    below_X = ((sorted_RX < estimate_X - tie_X).sum(axis=0) + (sorted_RX <= estimate_X + tie_X).sum(axis=0)) / 2
    bias_X = _normal_quantile((below_X + 0.5) / (len(sorted_RX) + 1))
    away_NX = left_out_NX.mean(axis=0) - left_out_NX
    squares_X = (away_NX**2).sum(axis=0)
    skew_X = (away_NX**3).sum(axis=0) / (6 * np.where(squares_X > 0, squares_X, 1.0) ** 1.5)
    return bias_X + (bias_X + z) / np.maximum(1 - skew_X * (bias_X + z), 0.1)


def _at(sorted_RX: np.ndarray, share_X: np.ndarray) -> np.ndarray:
    """The value below which a share of the rows lies, between neighbours in proportion."""
    place_X = share_X * (len(sorted_RX) - 1)
    below_X = np.floor(place_X).astype(int)
    above_X = np.minimum(below_X + 1, len(sorted_RX) - 1)
    low_X, high_X = (np.take_along_axis(sorted_RX, rank_X[None], axis=0)[0] for rank_X in (below_X, above_X))
    return low_X + (place_X - below_X) * (high_X - low_X)


_normal_cdf = np.vectorize(NormalDist().cdf, otypes=[np.float64])
_normal_quantile = np.vectorize(NormalDist().inv_cdf, otypes=[np.float64])
