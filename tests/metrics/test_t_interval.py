"""Student's interval: by hand, and against SciPy."""

import numpy as np
import pytest

from mygpt.metrics.t_interval import t_interval


def test_by_hand() -> None:
    """1, 2, 3, 4, 5: mean 3, s^2 = 10/4, error sqrt(2.5 / 5) = 0.7071, t of 4 degrees 2.7764: 3 -+ 1.9633."""
    interval = t_interval([1, 2, 3, 4, 5])
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((3.0, 1.0367, 4.9633), abs=1e-4)


def test_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(2)
    for n in (2, 3, 30, 301):
        values = rng.gamma(2.0, 1.0, n)
        for level in (0.5, 0.95):
            theirs = stats.t.interval(level, n - 1, loc=values.mean(), scale=stats.sem(values))
            ours = t_interval(values.tolist(), level=level)
            assert (ours.low, ours.high) == pytest.approx(theirs, abs=1e-9)


def test_equal_values_leave_no_width() -> None:
    interval = t_interval([0.25] * 4)
    assert (interval.low, interval.high) == (0.25, 0.25)


def test_fewer_than_two_are_refused() -> None:
    with pytest.raises(ValueError, match="two values or more: 1"):
        t_interval([0.5])
