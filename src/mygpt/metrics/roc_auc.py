"""Area under the ROC curve: the chance that a positive outscores a negative, ties counting one half; with its interval.

Source     Mann and Whitney 1947; interval: DeLong, DeLong and Clarke-Pearson 1988, "Comparing the areas under two or more correlated
           receiver operating characteristic curves" (structural components), on the logit scale so that it stays between 0 and 1
We differ  where no positive and negative are out of order (0 or 1) there is no variance to estimate: the limits are the estimate itself
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from mygpt.metrics.bootstrap import Interval


def roc_auc(positive: Sequence[float], negative: Sequence[float], *, level: float = 0.95) -> Interval:
    """Of scores that ought to be high for `positive`."""
    positive_M, negative_N = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    if not len(positive_M) or not len(negative_N):
        raise ValueError(f"the curve needs both kinds: {len(positive_M)} positives, {len(negative_N)} negatives")
    if not (np.isfinite(positive_M).all() and np.isfinite(negative_N).all()):
        raise ValueError("a score is not a number")
    above_M = _below(positive_M, negative_N)  # of each positive: the share of negatives below it
    beaten_N = 1 - _below(negative_N, positive_M)  # of each negative: the share of positives above it
    area = float(above_M.mean())
    variance = sum(float(v.var(ddof=1)) / len(v) for v in (above_M, beaten_N) if len(v) > 1)
    if variance == 0 or not 0 < area < 1:
        return Interval(area, area, area)
    reach = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(variance) / (area * (1 - area))
    centre = math.log(area / (1 - area))
    return Interval(area, *(1 / (1 + math.exp(-(centre + sign * reach))) for sign in (-1, 1)))


def _below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    ordered = np.sort(others)
    share: np.ndarray = (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / (2 * len(ordered))
    return share
