"""Elo by hand, and why it is for showing only."""

import math
from itertools import permutations

import pytest

from mygpt.metrics.bradley_terry import Comparison, bradley_terry
from mygpt.metrics.elo import elo, elo_points


def test_by_hand() -> None:
    """Even ratings: half a win expected, so 4 * 1/2 points move; then the winner is expected to win a little more often."""
    assert elo([Comparison("a", "b", 1.0)]) == {"a": 1002.0, "b": 998.0}
    expected = 1 / (1 + 10 ** (-4 / 400))
    assert elo([Comparison("a", "b", 1.0), Comparison("a", "b", 0.5)]) == pytest.approx(
        {"a": 1002 + 4 * (0.5 - expected), "b": 998 - 4 * (0.5 - expected)}
    )


def test_the_last_wins_count_most() -> None:
    """50 wins each, in two blocks: 66 points ahead is whoever won last."""
    even = [Comparison("a", "b", 1.0)] * 50 + [Comparison("a", "b", 0.0)] * 50
    forwards, backwards = elo(even), elo(even[::-1])
    assert forwards["b"] - forwards["a"] == pytest.approx(backwards["a"] - backwards["b"]) == pytest.approx(66, abs=1)
    assert bradley_terry(even) == pytest.approx({"a": 0.0, "b": 0.0}, abs=1e-9)


def test_depends_on_the_order_where_bradley_terry_does_not() -> None:
    played = [Comparison("a", "b", 1.0), Comparison("b", "c", 1.0), Comparison("c", "a", 1.0)]  # a circle: all are equal
    orders = [elo(list(order)) for order in permutations(played)]
    assert max(ratings["a"] for ratings in orders) - min(ratings["a"] for ratings in orders) > 0.01
    assert [bradley_terry(list(order)) for order in permutations(played)] == [pytest.approx({"a": 0.0, "b": 0.0, "c": 0.0})] * 6


def test_points_of_strengths() -> None:
    assert elo_points({"a": math.log(10) / 2, "b": -math.log(10) / 2}) == pytest.approx({"a": 1200, "b": 800})  # odds of ten to one


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="0 comparisons"):
        elo([])
    with pytest.raises(ValueError, match="comparison 0 of 1: 'a' and 'a'"):
        elo([Comparison("a", "a", 1.0)])
