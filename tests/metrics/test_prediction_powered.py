"""Prediction-powered means: by hand, at both ends, and how often the interval holds the truth."""

import math

import numpy as np
import pytest

from mygpt.metrics.prediction_powered import prediction_powered_mean
from mygpt.metrics.t_interval import t_interval

T_2 = 4.302652729911275  # Student's t, 2 degrees of freedom, 97.5 %: any table


def test_by_hand() -> None:
    """Judge 1 1 0 1 1 0, people on the first three 1 0 0: mean 4/6, errors 0 1 0 of mean 1/3, so 1/3.

    s^2 of the judge: (4/9 + 8/9) / 5 = 4/15 over 6 items: 2/45. s^2 of the errors: (1/9 + 4/9 + 1/9) / 2 = 1/3 over 3: 1/9.
    Shared: sum over the labelled of (f - 2/3) * (e - 1/3) = 1/3 * -1/3 + 1/3 * 2/3 - 2/3 * -1/3 = 1/3, over 6 * 3, times
    sqrt(6/5 * 3/2): 0.024845. Variance: 2/45 + 1/9 - 2 * 0.024845.
    """
    found = prediction_powered_mean([1, 1, 0, 1, 1, 0], [1, 0, 0, None, None, None])
    half = T_2 * math.sqrt(2 / 45 + 1 / 9 - 2 * (1 / 3 / 18 * math.sqrt(6 / 5 * 3 / 2)))
    assert found.mean.estimate == pytest.approx(1 / 3)
    assert (found.mean.low, found.mean.high) == pytest.approx((1 / 3 - half, 1 / 3 + half))
    assert (found.judge_alone, found.bias) == pytest.approx((2 / 3, 1 / 3))
    assert (found.num_items, found.num_labelled) == (6, 3)
    people = t_interval([1, 0, 0])
    assert (found.people_alone.low, found.people_alone.high) == pytest.approx((people.low, people.high))


def test_many_unlabelled_items_give_the_papers_variance() -> None:
    """Angelopoulos et al., algorithm 1: variance of the judge over N plus variance of the errors over n; what is shared falls as 1 / N."""
    rng = np.random.default_rng(1)
    judge, people = rng.random(200_000), [None] * 200_000
    labels = (rng.random(50) < judge[:50]).astype(float)
    people[:50] = labels.tolist()
    found = prediction_powered_mean(judge.tolist(), people)
    errors = judge[:50] - labels
    half = 2.009575 * math.sqrt(judge.var(ddof=1) / 200_000 + errors.var(ddof=1) / 50)  # t, 49 degrees of freedom
    assert found.mean.estimate == pytest.approx(judge.mean() - errors.mean())
    assert found.mean.high - found.mean.estimate == pytest.approx(half, rel=1e-3)


def test_with_every_item_labelled_the_judge_has_no_say() -> None:
    rng = np.random.default_rng(2)
    judge, people = rng.random(25), rng.random(25).tolist()
    found = prediction_powered_mean(judge.tolist(), people)
    theirs = t_interval(people)
    assert (found.mean.estimate, found.mean.low, found.mean.high) == pytest.approx((theirs.estimate, theirs.low, theirs.high))


def test_a_perfect_judge_leaves_only_its_own_spread() -> None:
    judge = [float(i % 3 == 0) for i in range(60)]
    found = prediction_powered_mean(judge, [*judge[:20], *[None] * 40])
    assert found.mean.estimate == pytest.approx(1 / 3) == found.judge_alone and found.bias == pytest.approx(0)
    wide = found.people_alone.high - found.people_alone.low
    assert found.mean.high - found.mean.low < 0.65 * wide  # sqrt(20 / 60) = 0.58, and t of 19 in place of 59


def test_clusters_are_summed_first() -> None:
    """Each value twice within its cluster is the same knowledge as once."""
    judge, people = [0.9, 0.2, 0.6, 0.7, 0.1], [1.0, 0.0, 1.0, None, None]
    once = prediction_powered_mean(judge, people)
    twice = prediction_powered_mean(judge * 2, people * 2, clusters=list("abcde") * 2)
    assert (twice.mean.low, twice.mean.high) == pytest.approx((once.mean.low, once.mean.high))


@pytest.mark.parametrize(("num", "num_labelled"), [(300, 30), (60, 20)])
def test_coverage_with_a_biased_judge(num: int, num_labelled: int) -> None:
    """1,000 samples; people say yes in 50 %, the judge agrees with noise and 0.2 too high. The judge alone is always wrong."""
    rng = np.random.default_rng(3)
    held = narrower = 0
    for _ in range(1_000):
        people = (rng.random(num) < 0.5).astype(float)
        judge = 0.2 + 0.6 * people + 0.1 * rng.random(num)
        found = prediction_powered_mean(judge.tolist(), [*people[:num_labelled].tolist(), *[None] * (num - num_labelled)])
        held += found.mean.low <= 0.5 <= found.mean.high
        narrower += found.mean.high - found.mean.low < found.people_alone.high - found.people_alone.low
    assert 0.935 <= held / 1_000 <= 0.97
    assert narrower / 1_000 > 0.99


def test_what_cannot_be_estimated_is_refused() -> None:
    with pytest.raises(ValueError, match="two clusters"):
        prediction_powered_mean([1, 0, 1], [1, None, None])
    with pytest.raises(ValueError, match="two clusters"):
        prediction_powered_mean([1, 0, 1], [1, 0, None], clusters=["a", "a", "b"])
    with pytest.raises(ValueError, match="per item"):
        prediction_powered_mean([1, 0], [1])
    with pytest.raises(ValueError, match="numbers"):
        prediction_powered_mean([math.nan, 0], [1, 0])
