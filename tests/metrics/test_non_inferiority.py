"""Non-inferiority and equivalence: by hand on normal values, by their relation to the interval, and by how often they err."""

import math

import numpy as np
import pytest

from mygpt.metrics.non_inferiority import equivalence, items_for_margin, non_inferiority

stats = pytest.importorskip("scipy.stats")


def test_normal_values_as_student_would_have_it() -> None:
    """Two hundred normal differences: limits and p of the one-sided t test, up to the two added items (they add 2 of 202)."""
    before = np.random.default_rng(1).normal(0.6, 0.1, 200)
    after = before + np.random.default_rng(2).normal(-0.005, 0.1, 200)
    found = non_inferiority(after.tolist(), before.tolist(), margin=0.02, num_resamples=20_000)
    d = after - before
    error = d.std(ddof=1) / math.sqrt(200)
    assert found.interval.estimate == pytest.approx(d.mean())
    assert found.interval.low == pytest.approx(d.mean() - stats.t.ppf(0.95, 199) * error, abs=0.1 * error)
    assert found.interval.high == pytest.approx(d.mean() + stats.t.ppf(0.95, 199) * error, abs=0.1 * error)
    assert found.p_value == pytest.approx(stats.ttest_1samp(d, -0.02, alternative="greater").pvalue, abs=0.015)


def test_two_lost_and_two_won_by_hand() -> None:
    """Of 98 items 2 were lost and 2 won; with Bonett and Price's two more it is 3 and 3 of 100. Error of the mean sqrt(.06 / 99) = .02462,
    t of 99 degrees 1.6604, one-sided limit -.0409: a margin of 5 points is shown, one of 4 is not."""
    after, before = [1.0] * 2 + [0.0] * 2 + [1.0] * 94, [0.0] * 2 + [1.0] * 2 + [1.0] * 94
    wide, tight = (non_inferiority(after, before, margin=m, num_resamples=40_000) for m in (0.05, 0.04))
    assert wide.interval.low == pytest.approx(-0.0409, abs=0.0005)
    assert (wide.holds, tight.holds) == (True, False)
    assert wide.p_value < 0.05 < tight.p_value


def test_p_is_where_the_limit_touches_the_margin() -> None:
    rng = np.random.default_rng(3)
    after, before = rng.beta(3, 2, 60).tolist(), rng.beta(3, 2, 60).tolist()
    for margin in (0.02, 0.08, 0.2):
        found = non_inferiority(after, before, margin=margin)
        assert found.holds == (found.interval.low > -margin) == (found.p_value < 0.05)
        if 0.001 < found.p_value < 0.5:
            at_p = non_inferiority(after, before, margin=margin, level=1 - found.p_value)
            assert at_p.interval.low == pytest.approx(-margin, abs=1e-6)


def test_equal_answers_show_no_more_than_their_number() -> None:
    """Sixty equal answers of sixty: three of a hundred lost would pass unseen with chance .97^60 = 16 %, so 3 points are not shown.
    Of 400 with chance .97^400 < 1e-5, so they are."""
    assert not non_inferiority([1.0] * 60, [1.0] * 60, margin=0.03).holds
    assert non_inferiority([1.0] * 400, [1.0] * 400, margin=0.03).holds


def test_items_for_a_margin_by_hand() -> None:
    """10 % lost and 10 % won, a margin of 10 points. With 135 items the spread of 137, two flips among them, is
    sqrt((135 * .2 + 2) / 137) = .4601, the error .4601 / sqrt(136) = .03945, times t of 136 degrees 1.6561 and 1.05 = .06861;
    one time in five the estimate is below -.8416 * .4472 * sqrt(135) / 137 = -.03192. Together .1005, too far; with 137 items
    .0998. So it is where the spread is known (kurtosis 1); it is estimated, from flips of kurtosis 1 / .2 = 5, which takes two items
    more: .03192 times sqrt(1 + 1.739^2 * 4 / (4 * 135)) = 1.011. The usual formula says 124."""
    assert math.ceil(((1.6448536 + 0.8416212) * 0.2**0.5 / 0.1) ** 2) == 124
    assert items_for_margin(0.1, 0.2**0.5, 1.0, kurtosis=1.0) == 137
    assert items_for_margin(0.1, 0.2**0.5, 1.0, kurtosis=5.0) == 138
    assert items_for_margin(0.1, 0.2**0.5, 1.0, power=0.9) > 170 and items_for_margin(0.05, 0.2**0.5, 1.0) > 500


def test_so_many_items_show_it_as_often_as_stated() -> None:
    """F1 that differs on half of the items, nothing lost: 80 of a hundred; the usual formula's 99 items show it 73 times."""
    rng = np.random.default_rng(8)

    def draw(n: int) -> np.ndarray:
        return np.where(rng.random(n) < 0.5, 0.0, rng.beta(2, 3, n) - rng.beta(2, 3, n))

    added = non_inferiority(draw(120).tolist(), [0.0] * 120, margin=0.05, num_resamples=200).added
    n = items_for_margin(0.05, 0.2, added)
    assert 115 <= n <= 125
    shown = sum(non_inferiority(draw(n).tolist(), [0.0] * n, margin=0.05, num_resamples=400).holds for _ in range(600)) / 600
    assert shown == pytest.approx(0.81, abs=0.045)  # 3 standard errors


def test_equivalence_is_both_sides() -> None:
    rng = np.random.default_rng(4)
    before = rng.normal(0.5, 0.1, 100)
    better, same = (before + rng.normal(gain, 0.05, 100) for gain in (0.05, 0.0))
    assert non_inferiority(better.tolist(), before.tolist(), margin=0.03).holds
    assert not equivalence(better.tolist(), before.tolist(), margin=0.03).holds
    both = equivalence(same.tolist(), before.tolist(), margin=0.02)
    down = non_inferiority(same.tolist(), before.tolist(), margin=0.02)
    up = non_inferiority(before.tolist(), same.tolist(), margin=0.02)
    assert both.holds and up.p_value > 10 * down.p_value
    assert both.p_value == pytest.approx(up.p_value, rel=0.1)
    assert (both.interval.low, both.interval.high) == pytest.approx((down.interval.low, -up.interval.low), abs=2e-4)


def test_a_true_loss_of_the_margin_passes_as_rarely_as_stated() -> None:
    """Five in a hundred lost, one won, of 100 items: true loss .04 = margin, the claim comes in at most 5 % (and 4.6 % of luck)."""
    rng = np.random.default_rng(5)
    claimed = 0
    for _ in range(200):
        u = rng.random(100)
        after, before = (u >= 0.05).astype(float), ((u < 0.05) | (u >= 0.06)).astype(float)
        claimed += non_inferiority(after.tolist(), before.tolist(), margin=0.04, num_resamples=500).holds
    assert claimed / 200 <= 0.096


def test_whole_clusters_carry_the_burden() -> None:
    """Ten answers for each of 12 questions: one by one the margin seems shown, by question it is not."""
    rng = np.random.default_rng(6)
    before = np.repeat(rng.random(12), 10)
    after = before + np.repeat(rng.normal(0.0, 0.1, 12), 10)
    clusters = [str(i // 10) for i in range(120)]
    assert non_inferiority(after.tolist(), before.tolist(), margin=0.04).holds
    assert not non_inferiority(after.tolist(), before.tolist(), margin=0.04, clusters=clusters).holds


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="as many"):
        non_inferiority([1.0], [1.0, 0.0], margin=0.1)
    with pytest.raises(ValueError, match=r"above 0: -0\.1"):
        non_inferiority([1.0], [1.0], margin=-0.1)
    with pytest.raises(ValueError, match="nothing"):
        non_inferiority([], [], margin=0.1)
    with pytest.raises(ValueError, match="one cluster of 2"):
        non_inferiority([1.0, 0.0], [1.0, 0.0], margin=0.1, clusters=["one", "one"])
    with pytest.raises(ValueError, match="no finite value"):
        equivalence([math.nan, 1.0], [1.0, 1.0], margin=0.1)
