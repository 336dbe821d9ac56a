"""Approximate randomisation: had the names of the two systems been swapped at random, item by item, how often would they differ as much?

p = (#{|d*| >= |d|} + 1) / (num_samples + 1), where d is the difference of the statistic, and d* that after swapping each item's two
outputs with chance 1/2. For BLEU or F1 of a whole corpus, items come as sufficient statistics that sum to the corpus's.

Source: Noreen 1989, "Computer-intensive methods for testing hypotheses", section 2; for corpus metrics Riezler and Maxwell 2005, "On some
pitfalls in automatic evaluation and significance testing for MT".
"""

from collections.abc import Callable, Sequence

import numpy as np

from mygpt.metrics.bootstrap import DRAWS_AT_ONCE, sum_clusters

_TIES = 1e-9  # relative; a swap that undoes another sums in another order


def _total(sums_K: np.ndarray) -> np.ndarray:
    return sums_K[..., 0]


def approximate_randomisation(
    after_NK: Sequence[float] | np.ndarray,
    before_NK: Sequence[float] | np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray] = _total,
    *,
    clusters: Sequence[str] = (),
    num_samples: int = 10_000,
    seed: int = 0,
) -> float:
    """Two-sided p. Rows are items, numbers or rows of K sums; `statistic` maps sums of shape (..., K) to (...); without it the mean is
    compared. Whole clusters are swapped."""
    after_NK, before_NK = np.asarray(after_NK, dtype=np.float64), np.asarray(before_NK, dtype=np.float64)
    if after_NK.shape != before_NK.shape or not after_NK.size:
        raise ValueError(f"paired values must be as many, and some: {after_NK.shape} and {before_NK.shape}")
    after_NK = sum_clusters(after_NK.reshape(len(after_NK), -1), clusters)
    before_NK = sum_clusters(before_NK.reshape(len(before_NK), -1), clusters)
    after_K, before_K, moved_NK = after_NK.sum(axis=0), before_NK.sum(axis=0), before_NK - after_NK
    observed = float(abs(statistic(after_K) - statistic(before_K)))
    generator = np.random.default_rng(seed)
    as_far, at_once = 0, max(1, DRAWS_AT_ONCE // len(moved_NK))
    for start in range(0, num_samples, at_once):
        swapped_SN = generator.integers(0, 2, size=(min(at_once, num_samples - start), len(moved_NK)), dtype=np.int8)
        moved_SK = swapped_SN.astype(np.float64) @ moved_NK
        distance_S = np.abs(statistic(after_K + moved_SK) - statistic(before_K - moved_SK))
        scale = np.abs(after_NK).sum() + np.abs(before_NK).sum() if statistic is _total else 1.0
        as_far += int((distance_S >= observed - _TIES * scale).sum())
    return (as_far + 1) / (num_samples + 1)
