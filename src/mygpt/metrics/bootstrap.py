"""Bootstrap intervals: how far a mean could have been off, had other questions been drawn.

    paired_bootstrap(after, before)   of mean(after - before), over the same items
    bootstrap_mean(values)            of one mean
    bootstrap_ratio(sums, weights)    of sum(sums) / sum(weights): bits per byte over pieces of text

Whole clusters are drawn, with replacement; an item without a cluster is its own. Questions about one passage rise and fall together, and
drawing them one by one would promise more certainty than there is. Limits are the percentiles of the resampled values.

Source: Efron and Tibshirani 1993, "An introduction to the bootstrap", sections 13.3 (percentile interval) and 8.3 (drawing what is
independent); paired differences as in Koehn 2004, "Statistical significance tests for machine translation evaluation".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_DRAWS_AT_ONCE = 4_000_000  # bounds memory at about 64 MB


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
    sums_N, weights_N = np.asarray(sums, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if not len(sums_N) or (clusters and len(clusters) != len(sums_N)):
        raise ValueError(f"nothing to resample: {len(sums_N)} values, {len(clusters)} clusters")
    if clusters:
        _, cluster_N = np.unique(np.asarray(clusters), return_inverse=True)
        sums_N = np.bincount(cluster_N, weights=sums_N).astype(np.float64)
        weights_N = np.bincount(cluster_N, weights=weights_N).astype(np.float64)
    generator = np.random.default_rng(seed)
    resampled = []
    at_once = max(1, _DRAWS_AT_ONCE // len(sums_N))
    for start in range(0, num_resamples, at_once):
        drawn_RN = generator.integers(0, len(sums_N), size=(min(at_once, num_resamples - start), len(sums_N)))
        resampled.append(sums_N[drawn_RN].sum(axis=1) / weights_N[drawn_RN].sum(axis=1))
    low, high = np.quantile(np.concatenate(resampled), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sums_N.sum() / weights_N.sum()), float(low), float(high))
