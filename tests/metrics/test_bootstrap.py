"""Bootstrap intervals: by hand, against SciPy, and how often they hold the truth."""

import numpy as np
import pytest

from mygpt.metrics.bootstrap import bootstrap_mean, bootstrap_ratio, paired_bootstrap


def test_two_values_by_hand() -> None:
    """Of 0 and 1 a resample's mean is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4: the 95 % limits are the ends, the 40 % limits the middle."""
    wide = bootstrap_mean([0.0, 1.0], num_resamples=4_000)
    assert (wide.estimate, wide.low, wide.high) == (0.5, 0.0, 1.0)
    narrow = bootstrap_mean([0.0, 1.0], num_resamples=4_000, level=0.4)
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(5)
    after, before = rng.beta(2, 3, 80), rng.beta(2, 4, 80)
    ours = paired_bootstrap(after.tolist(), before.tolist(), num_resamples=20_000, seed=1)
    theirs = stats.bootstrap(
        (after, before),
        lambda a, b, axis: (a - b).mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        rng=rng,
    ).confidence_interval
    assert ours.estimate == pytest.approx((after - before).mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)  # 3 % of the interval's width


def test_same_seed_same_interval_and_constant_gain_has_no_width() -> None:
    values = [0.1, 0.4, 0.3, 0.9, 0.2, 0.35, 0.71, 0.05, 0.66, 0.13, 0.52, 0.29]
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)
    gain = paired_bootstrap([v + 0.25 for v in values], values)
    assert (gain.low, gain.high) == pytest.approx((0.25, 0.25))
    assert gain.above_zero and not gain.below_zero


def test_coverage() -> None:
    """Of 400 samples of 40 items, the interval should hold the true mean in about 95 % (the percentile interval: a little less)."""
    rng = np.random.default_rng(11)
    held = 0
    for sample in rng.beta(2, 5, (400, 40)):
        interval = bootstrap_mean(sample.tolist(), num_resamples=1_000)
        held += interval.low <= 2 / 7 <= interval.high
    assert 0.91 <= held / 400 <= 0.98


def test_coverage_of_clustered_items() -> None:
    """Items of one passage share its luck: drawn one by one the interval is far too narrow, drawn by passage it is honest."""
    rng = np.random.default_rng(12)
    clusters = [str(i // 5) for i in range(150)]
    held = {"items": 0, "clusters": 0}
    for _ in range(200):
        values = (np.repeat(rng.normal(0, 1, 30), 5) + rng.normal(0, 0.3, 150)).tolist()
        alone, together = bootstrap_mean(values, num_resamples=600), bootstrap_mean(values, clusters=clusters, num_resamples=600)
        held["items"] += alone.low <= 0 <= alone.high
        held["clusters"] += together.low <= 0 <= together.high
    assert held["clusters"] / 200 >= 0.89
    assert held["items"] / 200 <= 0.75


def test_ratio_weighs_pieces_by_their_size() -> None:
    interval = bootstrap_ratio([1.0, 6.0], [1.0, 3.0])
    assert interval.estimate == pytest.approx(7 / 4)
    assert (interval.low, interval.high) == pytest.approx((1.0, 2.0))  # all draws of the one, all draws of the other


def test_what_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(ValueError, match="as many"):
        paired_bootstrap([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="nothing"):
        bootstrap_mean([])
