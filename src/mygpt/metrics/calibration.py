"""Calibration: of the answers given with 80 % confidence, are 80 % right?

    equal_width_bins, equal_mass_bins  the points of a reliability diagram
    expected_calibration_error         ECE = sum over bins of (items in bin / items) * |accuracy - mean confidence|
    brier_binary                       mean of (p - outcome)^2: 0 best, 0.25 for always saying 1/2, 1 worst
    brier_multiclass                   mean over items of sum over classes of (p - [it is the class])^2: 0 to 2
    selective_accuracy                 accuracy on the share of items that the model is surest of

Source: Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning"; bins (low, high] of equal width as in Guo et
al. 2017, arXiv:1706.04599, section 2; of equal mass: Nguyen and O'Connor 2015, arXiv:1508.05154; Brier 1950, "Verification of forecasts
expressed in terms of probability"; selective accuracy: Geifman and El-Yaniv 2017, arXiv:1705.08500, as HELM's selective_acc@10.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class ReliabilityBin:
    low: float
    high: float
    num_items: int
    confidence: float  # their mean
    accuracy: float


def equal_width_bins(confidences: Sequence[float], correct: Sequence[bool], *, num_bins: int = 10) -> list[ReliabilityBin]:
    """Bins (0, 0.1], (0.1, 0.2], ...; 0 belongs to the first. Empty bins are left out."""
    confidences_N, correct_N = _checked(confidences, correct, num_bins)
    edges = [i / num_bins for i in range(num_bins + 1)]
    bin_N = np.clip(np.searchsorted(edges, confidences_N, side="left") - 1, 0, num_bins - 1)
    return [_bin(edges[i], edges[i + 1], confidences_N[bin_N == i], correct_N[bin_N == i]) for i in range(num_bins) if (bin_N == i).any()]


def equal_mass_bins(confidences: Sequence[float], correct: Sequence[bool], *, num_bins: int = 10) -> list[ReliabilityBin]:
    """About as many items in each; items of one confidence stay together, so that the order of items does not matter."""
    confidences_N, correct_N = _checked(confidences, correct, num_bins)
    order_N = np.argsort(confidences_N, kind="stable")
    confidences_N, correct_N = confidences_N[order_N], correct_N[order_N]
    cuts = {0, len(confidences_N)}
    for i in range(1, num_bins):
        place = round(i * len(confidences_N) / num_bins)
        cuts.add(int(np.searchsorted(confidences_N, confidences_N[min(place, len(confidences_N) - 1)], side="left")))
    edges = sorted(cuts)
    return [_bin(float(confidences_N[a]), float(confidences_N[b - 1]), confidences_N[a:b], correct_N[a:b]) for a, b in pairwise(edges)]


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    num_items = sum(one.num_items for one in bins)
    if not num_items:
        raise ValueError(f"the calibration error of {len(bins)} bins with 0 items is not defined")
    return sum(one.num_items / num_items * abs(one.accuracy - one.confidence) for one in bins)


def brier_binary(probabilities: Sequence[float], outcomes: Sequence[bool]) -> float:
    probabilities_N, outcomes_N = _checked(probabilities, outcomes, 1)
    return float(((probabilities_N - outcomes_N) ** 2).mean())


def brier_multiclass(probabilities: Sequence[Sequence[float]], gold: Sequence[int]) -> float:
    """`probabilities[i][k]`: of class k for item i; each row sums to 1. Rows may differ in length (options of a multiple choice)."""
    if not gold or len(probabilities) != len(gold):
        raise ValueError(f"the Brier score needs as many rows as right classes, and some: {len(probabilities)} and {len(gold)}")
    total = 0.0
    for place, (row, right) in enumerate(zip(probabilities, gold, strict=True)):
        if not 0 <= right < len(row) or not all(0 <= p <= 1 for p in row) or not math.isclose(sum(row), 1, abs_tol=1e-4):
            raise ValueError(f"item {place}: class {right} of {len(row)} probabilities that sum to {sum(row):.4f}")
        total += sum((p - (k == right)) ** 2 for k, p in enumerate(row))
    return total / len(gold)


def selective_accuracy(confidences: Sequence[float], correct: Sequence[bool], *, coverage: float = 0.1) -> float:
    """On the surest `coverage` of the items, at least one. Items as sure as the last one taken share its places."""
    confidences_N, correct_N = _checked(confidences, correct, 1)
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage is a share above 0 and up to 1, not {coverage}")
    num_taken = max(1, math.floor(coverage * len(confidences_N) + 1e-9))
    threshold = np.sort(confidences_N)[-num_taken]
    above_N, at_N = confidences_N > threshold, confidences_N == threshold
    right = correct_N[above_N].sum() + (num_taken - above_N.sum()) * correct_N[at_N].mean()
    return float(right / num_taken)


def _bin(low: float, high: float, confidences_B: np.ndarray, correct_B: np.ndarray) -> ReliabilityBin:
    return ReliabilityBin(low, high, len(confidences_B), float(confidences_B.mean()), float(correct_B.mean()))


def _checked(confidences: Sequence[float], correct: Sequence[bool], num_bins: int) -> tuple[np.ndarray, np.ndarray]:
    if not len(confidences) or len(confidences) != len(correct):
        raise ValueError(f"calibration needs as many confidences as outcomes, and some: {len(confidences)} and {len(correct)}")
    if num_bins < 1:
        raise ValueError(f"calibration needs 1 bin or more, not {num_bins}")
    confidences_N, correct_N = np.asarray(confidences, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    off = np.flatnonzero(~((confidences_N >= 0) & (confidences_N <= 1)))
    if len(off):
        raise ValueError(f"confidence {off[0]} of {len(confidences_N)} is {confidences_N[off[0]]}, not a probability")
    off = np.flatnonzero((correct_N != 0) & (correct_N != 1))
    if len(off):
        raise ValueError(f"outcome {off[0]} of {len(correct_N)} is {correct_N[off[0]]}, not right (1) or wrong (0)")
    return confidences_N, correct_N
