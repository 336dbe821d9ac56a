"""A mean that people would give, from a judge's value for every item and a person's for a few.

    estimate = mean of the judge over all items - mean of (judge - person) over the labelled items
    variance = s^2(judge) / N + s^2(judge - person) / n - 2 * what the two parts share

The judge's error is measured on the labelled items and taken off; the better the judge, the narrower the interval. It holds whatever the
judge is worth, provided that the labelled items were drawn at random: those that somebody found interesting will not do.

Source: Angelopoulos et al. 2023, "Prediction-powered inference", arXiv:2301.09633, section 2 and algorithm 1 (the mean).
We differ: there the judged items and the labelled ones are two separate sets. Here the labelled items are some of those judged, hence the
third part of the variance: with every item labelled, the estimate is the mean of the people and the interval Student's. Student's t, with
as many degrees of freedom as labelled clusters less one, in place of the normal distribution: labels are few. Clusters are summed first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mygpt.metrics.bootstrap import Interval
from mygpt.metrics.student_t import t_quantile


@dataclass(frozen=True)
class PredictionPowered:
    mean: Interval  # corrected
    judge_alone: float  # mean over all items, uncorrected
    people_alone: Interval  # from the labelled items only: what the judge has to beat
    num_items: int
    num_labelled: int

    @property
    def bias(self) -> float:
        """How much too high the judge is."""
        return self.judge_alone - self.mean.estimate


def prediction_powered_mean(
    judge: Sequence[float], people: Sequence[float | None], *, clusters: Sequence[str] = (), level: float = 0.95
) -> PredictionPowered:
    """`people[i]` is None where nobody looked. Two labelled items (of two clusters) or more."""
    if len(judge) != len(people) or (clusters and len(clusters) != len(judge)):
        raise ValueError(f"one value of the judge and one place for a person's per item: {len(judge)}, {len(people)}, {len(clusters)}")
    judge_N = np.asarray(judge, dtype=np.float64)
    people_N = np.asarray([math.nan if value is None else value for value in people], dtype=np.float64)
    if not np.isfinite(judge_N).all():
        raise ValueError("the judge's values must be numbers: leave out the items that it did not judge")
    labelled_N = ~np.isnan(people_N)
    _, cluster_N = np.unique(np.asarray(clusters), return_inverse=True) if clusters else (None, np.arange(len(judge_N)))
    num_labelled_clusters = len(set(cluster_N[labelled_N].tolist()))
    if num_labelled_clusters < 2:
        raise ValueError(f"labels on two clusters or more are needed: {num_labelled_clusters}")
    error_N = np.where(labelled_N, judge_N - people_N, 0.0)
    error = error_N[labelled_N].mean()
    estimate = judge_N.mean() - error
    reach = t_quantile((1 + level) / 2, num_labelled_clusters - 1)

    judge_part_N = _influence(judge_N, judge_N.mean(), np.ones(len(judge_N), dtype=bool), cluster_N)
    error_part_N = _influence(error_N, error, labelled_N, cluster_N)
    half = reach * _standard_error(judge_part_N - error_part_N, cluster_N)
    by_people = people_N[labelled_N].mean()
    people_half = reach * _standard_error(_influence(np.where(labelled_N, people_N, 0.0), by_people, labelled_N, cluster_N), cluster_N)
    return PredictionPowered(
        mean=Interval(float(estimate), float(estimate - half), float(estimate + half)),
        judge_alone=float(judge_N.mean()),
        people_alone=Interval(float(by_people), float(by_people - people_half), float(by_people + people_half)),
        num_items=len(judge_N),
        num_labelled=int(labelled_N.sum()),
    )


def _influence(values_N: np.ndarray, mean: float, counted_N: np.ndarray, cluster_N: np.ndarray) -> np.ndarray:
    """What each item adds to the error of the mean over `counted`; squares over clusters sum to the unbiased variance of that mean."""
    num_clusters = len(set(cluster_N[counted_N].tolist()))
    influence_N: np.ndarray = counted_N * (values_N - mean) / counted_N.sum() * math.sqrt(num_clusters / (num_clusters - 1))
    return influence_N


def _standard_error(influence_N: np.ndarray, cluster_N: np.ndarray) -> float:
    return math.sqrt(float((np.bincount(cluster_N, weights=influence_N) ** 2).sum()))
