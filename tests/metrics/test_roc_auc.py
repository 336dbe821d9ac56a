"""The area by hand, its interval by hand and by coverage."""

import math

import numpy as np
import pytest

from mygpt.metrics.roc_auc import roc_auc


def test_by_hand() -> None:
    """Positives 0.9, 0.4 against negatives 0.5, 0.4, 0.1: of six pairs 4 are in order, 1 is not, 1 is a tie: 4.5 / 6.

    Components: positives 1 and 1.5/3 (variance 1/8), negatives 1/2, 3/4 and 1 (variance 1/16): 1/16 + 1/48 = 1/12.
    """
    area = roc_auc([0.9, 0.4], [0.5, 0.4, 0.1])
    assert area.estimate == pytest.approx(0.75)
    reach = 1.959964 * math.sqrt(1 / 12) / (0.75 * 0.25)
    assert area.low == pytest.approx(1 / (1 + math.exp(-(math.log(3) - reach))), abs=1e-6)
    assert area.high == pytest.approx(1 / (1 + math.exp(-(math.log(3) + reach))), abs=1e-6)


def test_turned_scores_turn_the_area_and_order_is_all_that_counts() -> None:
    rng = np.random.default_rng(3)
    positive, negative = rng.normal(0.7, 1, 40), rng.normal(0, 1, 60)
    area, turned = roc_auc(positive.tolist(), negative.tolist()), roc_auc((-positive).tolist(), (-negative).tolist())
    assert (turned.estimate, turned.low, turned.high) == pytest.approx((1 - area.estimate, 1 - area.high, 1 - area.low))
    assert roc_auc(np.exp(positive).tolist(), np.exp(negative).tolist()) == area
    everyone = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert area.estimate == pytest.approx(np.mean(everyone))


def test_coverage() -> None:
    """Two unit normals 1 apart have the area Phi(1 / sqrt 2) = 0.7602; 400 samples of 40 and 40."""
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(400):
        area = roc_auc(rng.normal(1, 1, 40).tolist(), rng.normal(0, 1, 40).tolist())
        held += area.low <= 0.7602 <= area.high
    assert 0.92 <= held / 400 <= 0.98


def test_extremes_and_bad_input() -> None:
    assert roc_auc([2.0, 3.0], [0.0, 1.0]).estimate == 1.0
    assert roc_auc([1.0, 1.0], [1.0, 1.0]).estimate == 0.5
    with pytest.raises(ValueError, match="both kinds: 0 positives"):
        roc_auc([], [1.0])
    with pytest.raises(ValueError, match="not a number"):
        roc_auc([math.nan], [1.0])
