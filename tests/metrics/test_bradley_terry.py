"""Bradley-Terry: a textbook's table, SciPy's maximum, and how often the intervals hold."""

import math

import numpy as np
import pytest

from mygpt.metrics.bradley_terry import Comparison, bradley_terry, bradley_terry_intervals, strength_difference, win_probability

TEAMS = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
WINS = [  # American League 1987, row beat column (Agresti 2002, "Categorical data analysis", table 10.10)
    *([0, 7, 9, 7, 7, 9, 11], [6, 0, 7, 5, 11, 9, 9], [4, 6, 0, 7, 7, 8, 12], [6, 8, 6, 0, 6, 7, 10]),
    *([6, 2, 6, 7, 0, 7, 12], [4, 4, 5, 6, 6, 0, 6], [2, 4, 1, 3, 1, 7, 0]),
]
SEASON = [Comparison(TEAMS[i], TEAMS[j], 1.0) for i in range(7) for j in range(7) for _ in range(WINS[i][j])]


def test_agresti_2002() -> None:
    """Fitted strengths over Baltimore's, 10.6.1: 1.58, 1.44, 1.29, 1.25, 1.11, 0.68."""
    strengths = bradley_terry(SEASON)
    over_baltimore = [strengths[team] - strengths["Baltimore"] for team in TEAMS]
    assert over_baltimore == pytest.approx([1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0.0], abs=0.006)
    assert list(strengths) == TEAMS  # strongest first
    assert sum(strengths.values()) == pytest.approx(0, abs=1e-9)


def test_equals_scipys_maximum_with_ties_and_weights() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(3)
    played = [
        Comparison(*rng.choice(list("abcde"), 2, replace=False).tolist(), float(rng.choice([0.0, 0.5, 1.0])), float(rng.uniform(0.5, 3)))
        for _ in range(80)
    ]

    def loss(s: np.ndarray) -> float:
        apart = np.array([s["abcde".index(c.first)] - s["abcde".index(c.second)] for c in played])
        outcome, weight = np.array([c.outcome for c in played]), np.array([c.weight for c in played])
        likelihood = weight * (outcome * -np.logaddexp(0, -apart) + (1 - outcome) * -np.logaddexp(0, apart))
        return float(-likelihood.sum() + 0.01 / 2 * (s**2).sum())

    theirs = optimize.minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-8}).x
    ours = bradley_terry(played)
    assert [ours[name] for name in "abcde"] == pytest.approx(theirs.tolist(), abs=1e-5)


def test_two_models_by_hand() -> None:
    """75 wins of 100: odds of three to one. A tie is half a win for each; a weight of two is the comparison twice."""
    won, lost, tied = Comparison("a", "b", 1.0), Comparison("b", "a", 1.0), Comparison("a", "b", 0.5)
    strengths = bradley_terry([won] * 75 + [lost] * 25)
    assert strengths["a"] - strengths["b"] == pytest.approx(math.log(3), abs=0.001)  # the prior takes 0.0003
    assert win_probability(strengths["a"], strengths["b"]) == pytest.approx(0.75, abs=0.001)
    assert bradley_terry([won] * 50 + [tied] * 50) == pytest.approx(strengths)
    assert bradley_terry([Comparison("a", "b", 1.0, weight=75.0), Comparison("a", "b", 0.0, weight=25.0)]) == pytest.approx(strengths)


def test_order_does_not_matter() -> None:
    assert bradley_terry(SEASON[::-1]) == pytest.approx(bradley_terry(SEASON))


def test_intervals_hold_the_truth() -> None:
    """Of 150 tournaments of three models, 40 games a pair, about 95 % of the intervals of a difference hold the true one."""
    rng = np.random.default_rng(8)
    truth = {"a": 0.8, "b": 0.0, "c": -0.8}
    held = 0
    for _ in range(150):
        played = [
            Comparison(x, y, float(rng.random() < win_probability(truth[x], truth[y])))
            for x, y in (("a", "b"), ("b", "c"), ("a", "c"))
            for _ in range(40)
        ]
        found = strength_difference(played, "a", "b", num_resamples=200)
        held += found.low <= 0.8 <= found.high
    assert 0.90 <= held / 150 <= 0.99


def test_comparisons_of_one_prompt_are_drawn_together() -> None:
    """Each outcome copied five times under one prompt says no more than once: the interval stays as wide."""
    rng = np.random.default_rng(1)
    once = [Comparison("a", "b", float(rng.random() < 0.6), cluster=str(i)) for i in range(60)]
    width = {}
    for name, played in (("once", once), ("copied", once * 5), ("apart", [Comparison("a", "b", c.outcome) for c in once * 5])):
        found = bradley_terry_intervals(played)["a"]
        width[name] = found.high - found.low
    assert width["copied"] == pytest.approx(width["once"], rel=0.1)
    assert width["apart"] < 0.6 * width["once"]


def test_a_perfect_record_has_a_finite_strength_and_an_honest_interval() -> None:
    """Every draw of 10 wins is 10 wins. The likelihood falls by 1.92 where 10 ln(1 + exp(-d)) = 1.92: d = 1.55, a chance of .83."""
    played = [Comparison("a", "b", 1.0)] * 10
    found = strength_difference(played, "a", "b")
    assert found.low == pytest.approx(1.55, abs=0.1)  # the prior takes a little
    assert found.estimate == pytest.approx(5.83, abs=0.01)  # where 10 (1 - P) = 0.01 s: the prior's
    assert found.high > 20  # nothing bounds it but the prior
    thousand = strength_difference(played * 100, "a", "b")
    assert 5 < thousand.low < thousand.estimate < thousand.high
    third = [Comparison("b", "c", 1.0)] * 12 + [Comparison("c", "b", 1.0)] * 8
    ratings = bradley_terry_intervals(played + third)
    assert list(ratings) == ["a", "b", "c"]
    assert ratings["a"].low > 0
    once_each = [Comparison("a", "b", 1.0, cluster=str(i // 5)) for i in range(10)]  # two prompts
    assert strength_difference(once_each, "a", "b").low < 0


def test_where_all_draws_say_the_same_the_interval_keeps_a_width() -> None:
    """Ten ties count as five wins each: the likelihood falls by 1.92 where 5 ln(P) + 5 ln(1 - P) = 10 ln(1/2) - 1.92, at P = .78."""
    found = strength_difference([Comparison("a", "b", 0.5)] * 10, "a", "b")
    assert found.estimate == pytest.approx(0, abs=1e-9)
    assert (found.low, found.high) == pytest.approx((-1.28, 1.28), abs=0.02)
    one_prompt = [Comparison("a", "b", float(i % 3 > 0), cluster="only") for i in range(90)]
    assert strength_difference(one_prompt, "a", "b").low < 0 < strength_difference(one_prompt, "a", "b").high


def test_same_seed_same_interval() -> None:
    assert bradley_terry_intervals(SEASON, num_resamples=50, seed=2) == bradley_terry_intervals(SEASON, num_resamples=50, seed=2)
    assert bradley_terry_intervals(SEASON, num_resamples=50, seed=2) != bradley_terry_intervals(SEASON, num_resamples=50, seed=3)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="0 comparisons"):
        bradley_terry([])
    with pytest.raises(ValueError, match="l2 0"):
        bradley_terry(SEASON, l2=0)
    with pytest.raises(ValueError, match=r"comparison 1 of 2: 'a' and 'b', outcome 0\.7"):
        bradley_terry([Comparison("a", "b", 1.0), Comparison("a", "b", 0.7)])
    with pytest.raises(ValueError, match="'a' and 'a'"):
        bradley_terry([Comparison("a", "a", 1.0)])
    with pytest.raises(ValueError, match="weight nan"):
        bradley_terry([Comparison("a", "b", 1.0, weight=float("nan"))])
    with pytest.raises(ValueError, match="2 groups of models were never compared with each other: a, b; c, d"):
        bradley_terry([Comparison("a", "b", 1.0), Comparison("c", "d", 1.0)])
    with pytest.raises(ValueError, match="'z' is not among the 2 models"):
        strength_difference([Comparison("a", "b", 1.0)], "a", "z")
