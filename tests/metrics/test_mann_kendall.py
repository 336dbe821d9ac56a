"""Mann and Kendall's test, by hand and against SciPy."""

import math
import random

import pytest
from scipy.stats import kendalltau, theilslopes

from mygpt.metrics.mann_kendall import mann_kendall


def test_by_hand() -> None:
    """1 3 2 4: of six pairs five rise and one falls, S = 4; var S = 4*3*13/18 = 8.667; z = 3/2.944 = 1.019, one-sided 0.1541.
    Slopes 2, 1/2, 1, -1, 1/2, 2: median 0.75, over three steps 2.25."""
    trend = mann_kendall([1, 3, 2, 4])
    assert trend.rising_p == pytest.approx(0.1541, abs=1e-4)
    assert trend.falling_p == pytest.approx(1 - 0.5 * math.erfc(5 / math.sqrt(2 * 26 / 3)), abs=1e-9)  # (-4 - 1) / 2.944 the other way
    assert trend.slope == 0.75 and trend.change == 2.25


def test_ties_by_hand() -> None:
    """1 1 2: S = 2, var S = (3*2*11 - 2*1*9)/18 = 2.667, z = 1/1.633 = 0.6124."""
    assert mann_kendall([1, 1, 2]).rising_p == pytest.approx(0.5 * math.erfc(0.61237 / math.sqrt(2)), abs=1e-5)


def test_what_scipy_says() -> None:
    draw = random.Random(3)
    values = [round(draw.gauss(0.05 * i, 1), 1) for i in range(40)]
    trend, tau = mann_kendall(values), kendalltau(range(40), values, method="asymptotic")
    assert trend.slope == pytest.approx(theilslopes(values).slope)
    assert 2 * trend.rising_p == pytest.approx(tau.pvalue, rel=0.06)  # SciPy's has no correction for continuity


def test_nothing_moves() -> None:
    trend = mann_kendall([2.0] * 9)
    assert (trend.rising_p, trend.falling_p, trend.slope) == (1.0, 1.0, 0.0)


def test_chance_is_held() -> None:
    """Of noise, the share called rising at one in twenty is one in twenty."""
    draw = random.Random(0)
    called = sum(mann_kendall([draw.gauss(0, 1) for _ in range(20)]).rising_p < 0.05 for _ in range(1000))
    assert 30 <= called <= 65


def test_one_value_is_no_trend() -> None:
    with pytest.raises(ValueError, match="two values"):
        mann_kendall([1.0])
