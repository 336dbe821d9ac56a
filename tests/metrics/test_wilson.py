"""Wilson's interval: by hand, and against SciPy."""

import math

import pytest

from mygpt.metrics.wilson import wilson


def test_all_right_by_hand() -> None:
    """10 of 10: the lower limit is n / (n + z^2) = 10 / (10 + 3.8415) = 0.7225."""
    interval = wilson(10, 10)
    assert (interval.estimate, interval.high) == (1.0, 1.0)
    assert interval.low == pytest.approx(10 / 13.8415, abs=1e-5)
    mirrored = wilson(0, 10)
    assert (mirrored.low, mirrored.high) == pytest.approx((0.0, 1 - interval.low))


def test_limits_are_the_shares_that_a_score_test_just_keeps() -> None:
    """At each limit p0 the distance |p - p0| is z standard errors of p0."""
    interval = wilson(45, 60)
    for limit in (interval.low, interval.high):
        assert abs(0.75 - limit) / math.sqrt(limit * (1 - limit) / 60) == pytest.approx(1.959964, abs=1e-5)


def test_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for n in (1, 2, 30, 60, 200):
        for successes in range(0, n + 1, max(1, n // 12)):
            for level in (0.8, 0.95, 0.99):
                theirs = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
                ours = wilson(successes, n, level=level)
                assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_what_is_no_share_is_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"{successes} of {n}"):
        wilson(successes, n)
