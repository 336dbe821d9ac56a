"""One metric of one task, worked by hand and against scipy."""

import math

import pytest
from scipy.stats import binomtest

from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.paired_difference import Resampling, difference, has_headroom, mean, score
from mygpt.evaluate.same_items import SameItems, join
from tests.evaluate.made_up_predictions import flipped, made, shares

QUICK = Resampling(num_resamples=2_000)
Z = 1.959963984540054


def pair(run: Run, after: list[float], before: list[float], **settings: object) -> SameItems:
    (task,) = join([made(run, "base", "t", before, **settings), made(run, "tuned", "t", after, **settings)])
    return task


def test_flips_by_hand(run: Run) -> None:
    """50 of 100 right before; 5 lost, 15 won. d is -1 five times and +1 fifteen times: mean 0.1, sum of squares 20 - 100 * 0.1^2 = 19."""
    before = shares(100, 50)
    task = pair(run, flipped(before, lost=5, won=15), before)
    found = difference(task, "tuned", "base", "acc", QUICK)
    assert (found.won, found.lost, found.num_items, found.num_clusters) == (15, 5, 100, 100)
    assert found.interval.estimate == pytest.approx(0.10)
    assert found.test == "McNemar, exact"
    assert found.p_value == pytest.approx(2 * 21_700 / 2**20)  # 1 + 20 + 190 + 1140 + 4845 + 15504
    assert found.p_value == pytest.approx(binomtest(5, 20).pvalue)
    assert found.sd == pytest.approx(math.sqrt(19 / 99))
    # ((1.960 + 0.842) * 0.4381 / 0.05)^2 = 602.5; with the exact test's step 602.5 / 4 * (1 + sqrt(1 + 4 / (602.5 * 0.05)))^2 = 641.9
    assert found.needed(0.05) == 642
    assert found.detectable() == pytest.approx(2.8015852 * math.sqrt(19 / 99) / 10 + 0.01, abs=1e-5)
    # the sampling error of d is sqrt(0.19 / 100) = 0.0436: limits near 0.1 -+ 0.085
    assert found.interval.low == pytest.approx(0.0146, abs=0.02) and found.interval.high == pytest.approx(0.1854, abs=0.02)


def test_wilson_for_shares(run: Run) -> None:
    task = pair(run, shares(10, 10), shares(10, 8))
    made_of = score(task, "base", "acc", QUICK)
    assert made_of.method == "Wilson"
    assert (made_of.interval.low, made_of.interval.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson for 8 of 10
    all_right = score(task, "tuned", "acc", QUICK).interval
    assert all_right.low == pytest.approx(10 / (10 + Z * Z)) and all_right.high == 1.0


def test_no_flip_is_not_certainty(run: Run) -> None:
    """0 of 60 flipped: Wilson allows z^2 / (n + z^2) = 0.0602 of them either way."""
    found = difference(pair(run, shares(60, 30), shares(60, 30)), "tuned", "base", "acc", QUICK)
    reach = Z * Z / (60 + Z * Z)
    assert (found.interval.low, found.interval.estimate, found.interval.high) == pytest.approx((-reach, 0.0, reach))
    assert found.p_value == 1.0
    assert found.sd == pytest.approx(math.sqrt(3 / 60))  # the rule of three
    assert found.needed(0.05) == 195  # (2.8016 * 0.2236 / 0.05)^2 = 156.98, times (1 + sqrt(1 + 4 / 7.849))^2 / 4 = 1.2418


def test_items_of_one_cluster_are_not_independent(run: Run) -> None:
    clusters = tuple(f"c{i // 4}" for i in range(80))
    before = shares(80, 40)
    task = pair(run, flipped(before, lost=0, won=12), before, clusters=clusters)
    alone = difference(pair(run, flipped(before, lost=0, won=12), before), "tuned", "base", "acc", QUICK)
    together = difference(task, "tuned", "base", "acc", QUICK)
    assert together.test == "randomisation over 20 clusters" and together.num_clusters == 20
    # the 12 items won are 3 whole clusters: of 2^20 ways to swap clusters, those with all three one way are 2 in 8
    assert together.p_value == pytest.approx(0.25, abs=0.04) and alone.p_value == pytest.approx(2 / 2**12)
    assert together.interval.high - together.interval.low > alone.interval.high - alone.interval.low
    assert score(task, "base", "acc", QUICK).method == "bootstrap over 20 clusters"


def test_bits_per_byte_are_weighted_by_bytes(run: Run) -> None:
    """100 bytes at 1.0 and 300 at 2.0: 700 bits over 400 bytes. Every byte 0.1 dearer: no spread."""
    task = pair(run, [1.1, 2.1], [1.0, 2.0], primary="bits_per_byte", num_bytes=(100, 300), form="rolling")
    assert mean(task, "base", "bits_per_byte") == pytest.approx(1.75)
    assert score(task, "base", "bits_per_byte", QUICK).interval.estimate == pytest.approx(1.75)
    found = difference(task, "tuned", "base", "bits_per_byte", QUICK)
    assert (found.interval.low, found.interval.estimate, found.interval.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.gain.estimate == pytest.approx(-0.1) and (found.won, found.lost) == (0, 2)


def test_where_less_is_better_a_fall_is_won(run: Run) -> None:
    task = pair(run, shares(40, 10), shares(40, 20), primary="caved")
    found = difference(task, "tuned", "base", "caved", QUICK)
    assert (found.interval.estimate, found.gain.estimate, found.won, found.lost) == pytest.approx((-0.25, 0.25, 10, 0))
    assert (found.gain.low, found.gain.high) == pytest.approx((-found.interval.high, -found.interval.low))


def test_more_than_a_margin(run: Run) -> None:
    """A gain of exactly 0.1 everywhere differs from zero beyond doubt, and from 0.1 not at all."""
    before = [0.3, 0.4, 0.5, 0.2] * 10
    task = pair(run, [v + 0.1 for v in before], before, primary="f1")
    assert difference(task, "tuned", "base", "f1", QUICK).p_value == pytest.approx(1 / 2001)
    assert difference(task, "tuned", "base", "f1", QUICK, beyond=0.1).p_value == 1.0


@pytest.mark.parametrize(
    ("right", "chance", "headroom"),
    [(34, 0.25, False), (35, 0.25, True), (89, 0.25, True), (90, 0.25, False), (9, None, False), (10, None, True)],
)
def test_headroom(run: Run, right: int, chance: float | None, headroom: bool) -> None:
    """Ten points above chance, and below 90 %."""
    task = pair(run, shares(100, 50), shares(100, right), chance=chance)
    assert has_headroom(task, "base", "acc") is headroom


def test_headroom_is_of_shares_only(run: Run) -> None:
    assert has_headroom(pair(run, [1.0, 1.1], [1.0, 1.1], primary="bits_per_byte"), "base", "bits_per_byte") is None


def test_unknown_metric(run: Run) -> None:
    with pytest.raises(UsageError, match="base has no `f1` on t"):
        difference(pair(run, shares(4, 2), shares(4, 2)), "tuned", "base", "f1", QUICK)
