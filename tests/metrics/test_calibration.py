"""Calibration by hand."""

import random

import pytest

from mygpt.metrics.calibration import (
    brier_binary,
    brier_multiclass,
    equal_mass_bins,
    equal_width_bins,
    expected_calibration_error,
    selective_accuracy,
)

CONFIDENCES = [0.95, 0.95, 0.85, 0.85, 0.55]
CORRECT = [True, True, True, False, False]


def test_equal_width_by_hand() -> None:
    """(.9, 1]: .95 said, 1 right; (.8, .9]: .85 said, 1/2 right; (.5, .6]: .55 said, 0 right."""
    bins = equal_width_bins(CONFIDENCES, CORRECT)
    assert [(b.num_items, b.confidence, b.accuracy) for b in bins] == [(1, 0.55, 0.0), (2, 0.85, 0.5), (2, 0.95, 1.0)]
    assert [(b.low, b.high) for b in bins] == [(0.5, 0.6), (0.8, 0.9), (0.9, 1.0)]
    assert expected_calibration_error(bins) == pytest.approx(1 / 5 * 0.55 + 2 / 5 * 0.35 + 2 / 5 * 0.05)


def test_edges_belong_to_the_bin_below_and_0_to_the_first() -> None:
    bins = equal_width_bins([0.0, 0.1, 0.1001, 0.3, 1.0], [False] * 5)
    assert [(b.low, b.num_items) for b in bins] == [(0.0, 2), (0.1, 1), (0.2, 1), (0.9, 1)]


def test_equal_mass_by_hand() -> None:
    """Six items in three bins; the two .4 stay together, in whatever order they come."""
    confidences, correct = [0.1, 0.2, 0.4, 0.4, 0.8, 0.9], [False, False, True, False, True, True]
    for order in (list(range(6)), [3, 5, 2, 0, 4, 1]):
        bins = equal_mass_bins([confidences[i] for i in order], [correct[i] for i in order], num_bins=3)
        assert [(b.num_items, b.accuracy) for b in bins] == [(2, 0.0), (2, 0.5), (2, 1.0)]
        assert expected_calibration_error(bins) == pytest.approx((0.15 + 0.1 + 0.15) / 3)
    assert [b.num_items for b in equal_mass_bins([0.5] * 7, [True] * 7, num_bins=3)] == [7]


def test_who_says_what_happens_is_calibrated_and_boasting_is_seen() -> None:
    rng = random.Random(2)
    confidences = [rng.random() for _ in range(20_000)]
    happened = [rng.random() < c for c in confidences]
    for bins in (equal_width_bins(confidences, happened), equal_mass_bins(confidences, happened)):
        assert expected_calibration_error(bins) < 0.02
    boasted = [0.5 + c / 2 for c in confidences]
    assert expected_calibration_error(equal_width_bins(boasted, happened)) == pytest.approx(0.25, abs=0.02)  # mean of 1/2 - c/2


def test_brier_by_hand() -> None:
    """Rain said with .8 and it rained, with .3 and it did not: (.04 + .09) / 2. As two classes each error counts twice."""
    assert brier_binary([0.8, 0.3], [True, False]) == pytest.approx(0.065)
    assert brier_multiclass([[0.8, 0.2], [0.3, 0.7]], [0, 1]) == pytest.approx(0.13)
    assert brier_multiclass([[0.5, 0.3, 0.2]], [1]) == pytest.approx(0.25 + 0.49 + 0.04)
    assert brier_multiclass([[0.0, 1.0]], [0]) == 2.0


def test_selective_accuracy_by_hand() -> None:
    assert selective_accuracy(CONFIDENCES, CORRECT, coverage=0.4) == 1.0
    assert selective_accuracy(CONFIDENCES, CORRECT, coverage=0.6) == pytest.approx((2 + 1 / 2) / 3)  # one of the two at .85
    assert selective_accuracy(CONFIDENCES, CORRECT, coverage=1.0) == 3 / 5
    assert selective_accuracy(CONFIDENCES, CORRECT, coverage=0.01) == 1.0  # at least one item


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="1 and 2"):
        equal_width_bins([0.5], [True, False])
    with pytest.raises(ValueError, match="0 and 0"):
        brier_binary([], [])
    with pytest.raises(ValueError, match=r"confidence 1 of 2 is 1.2, not a probability"):
        equal_mass_bins([0.5, 1.2], [True, False])
    with pytest.raises(ValueError, match="confidence 0 of 1 is nan"):
        selective_accuracy([float("nan")], [True])
    with pytest.raises(ValueError, match=r"item 0: class 0 of 2 probabilities that sum to 0[.]9"):
        brier_multiclass([[0.5, 0.4]], [0])
    with pytest.raises(ValueError, match="1 and 2"):
        brier_multiclass([[0.5, 0.5]], [0, 1])
    with pytest.raises(ValueError, match="not 0"):
        selective_accuracy([0.5], [True], coverage=0)
