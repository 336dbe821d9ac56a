"""Bootstrap intervals: by hand, against SciPy and a plain loop, and how often they hold the truth."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from mygpt.metrics.bootstrap import (
    FEWEST_ITEMS,
    Interval,
    bootstrap_mean,
    bootstrap_ratio,
    bootstrap_statistic,
    interval_is_reliable,
    paired_bootstrap,
)
from mygpt.metrics.student_t import t_quantile


def test_two_values_by_hand() -> None:
    """Of 0 and 1 a resample's mean is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4: no limit lies beyond the ends, however wide t is.

    At 10 %: t of 1 degree is tan(0.05 pi) = 0.1584, the standard error sqrt(1/8) * sqrt(2) = 1/2, the limits 0.5 -+ 0.0792; the percentile
    at P(Z < -sqrt(2) * 0.1584) = 0.411 is 1/2.
    """
    wide = bootstrap_mean([0.0, 1.0], num_resamples=4_000)
    assert (wide.estimate, wide.low, wide.high) == (0.5, 0.0, 1.0)
    narrow = bootstrap_mean([0.0, 1.0], num_resamples=40_000, level=0.1)
    assert (narrow.low, narrow.high) == pytest.approx((0.4208, 0.5792), abs=0.001)


def test_agrees_with_scipy() -> None:
    """The wider of SciPy's BCa at the expanded level and Student's interval, of which the one and the other lead on one side each."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(5)
    after, before = rng.beta(2, 3, 80) ** 3, rng.beta(2, 4, 80)
    ours = paired_bootstrap(after.tolist(), before.tolist(), num_resamples=40_000, seed=1)
    expanded = 2 * stats.norm.cdf(math.sqrt(80 / 79) * stats.t.ppf(0.025, 79))
    theirs = stats.bootstrap(
        (after, before),
        lambda a, b, axis: (a - b).mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=40_000,
        confidence_level=1 - expanded,
        method="BCa",
        rng=rng,
    ).confidence_interval
    student = stats.t.interval(0.95, 79, loc=(after - before).mean(), scale=stats.sem(after - before))
    wider = min(theirs.low, student[0]), max(theirs.high, student[1])
    assert ours.estimate == pytest.approx((after - before).mean())
    assert (ours.low, ours.high) == pytest.approx(wider, abs=0.02 * (wider[1] - wider[0]))


def test_skew_is_seen_by_the_percentile_and_few_items_by_the_error() -> None:
    """0.9 for 10 of 100 answers, 0 for the rest: the true mean can lie further up than down, the upper limit is over 10 % further out than
    Student's. Two lost and two won of 100: percentiles of four items are rough, and the limits reach as far as Student's."""
    few = bootstrap_mean([0.9] * 10 + [0.0] * 90)
    assert few.high - few.estimate > 1.1 * t_quantile(0.975, 99) * float(np.std([0.9] * 10 + [0.0] * 90, ddof=1)) / 10
    changed = [1.0, 1.0, -1.0, -1.0] + [0.0] * 96
    balanced = bootstrap_mean(changed)
    reach = t_quantile(0.975, 99) * float(np.std(changed, ddof=1)) / 10
    assert balanced.high >= 0.98 * reach and balanced.low <= -0.98 * reach


def test_same_seed_same_interval_and_constant_gain_has_no_width() -> None:
    values = [0.1, 0.4, 0.3, 0.9, 0.2, 0.35, 0.71, 0.05, 0.66, 0.13, 0.52, 0.29]
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)
    gain = paired_bootstrap([v + 0.25 for v in values], values)
    assert (gain.low, gain.high) == pytest.approx((0.25, 0.25))
    assert gain.above_zero and not gain.below_zero


def test_loss_mirrors_gain() -> None:
    rng = np.random.default_rng(13)
    after, before = rng.random(50) ** 4, rng.random(50)
    gain, loss = paired_bootstrap(after.tolist(), before.tolist()), paired_bootstrap(before.tolist(), after.tolist())
    assert (gain.estimate, gain.low, gain.high) == pytest.approx((-loss.estimate, -loss.high, -loss.low))


def _held(draw: Callable[[np.random.Generator], Interval], truth: float, *, runs: int = 400) -> float:
    rng = np.random.default_rng(11)
    intervals = [draw(rng) for _ in range(runs)]
    return sum(i.low <= truth <= i.high for i in intervals) / runs


def test_coverage() -> None:
    """Of 400 samples of 40 items the interval holds the true mean in about 95 %; 3 standard errors of 400 are 3.3 %."""
    assert _held(lambda rng: bootstrap_mean(rng.beta(2, 5, 40).tolist(), num_resamples=1_000), 2 / 7) == pytest.approx(0.95, abs=0.033)


def test_several_answers_an_item_are_drawn_together() -> None:
    """Three answers sampled for each of 60 questions: drawn one by one the interval is too narrow, drawn by question it is honest."""
    clusters = [str(i // 3) for i in range(180)]

    def sampled(rng: np.random.Generator) -> list[float]:
        ease = rng.beta(0.5, 0.5, 60)  # most questions are nearly always right or nearly always wrong
        return (rng.random((60, 3)) < ease[:, None]).astype(float).ravel().tolist()

    alone = _held(lambda rng: bootstrap_mean(sampled(rng), num_resamples=500), 0.5)
    together = _held(lambda rng: bootstrap_mean(sampled(rng), clusters=clusters, num_resamples=500), 0.5)
    assert together >= 0.917
    assert alone <= 0.88


def test_clusters_are_what_is_drawn() -> None:
    """Five equal items a cluster carry no more than one: the interval is that of the clusters, whatever their names and order."""
    rng = np.random.default_rng(14)
    means = rng.normal(0, 1, 30)
    names = [f"c{i:02d}" for i in range(30)]
    spread_out = bootstrap_mean([float(m) for _ in range(5) for m in means], clusters=names * 5)
    alone = bootstrap_mean(means.tolist())
    assert (spread_out.low, spread_out.high) == pytest.approx((alone.low, alone.high))


def test_ratio_weighs_pieces_by_their_size() -> None:
    interval = bootstrap_ratio([1.0, 6.0], [1.0, 3.0])
    assert interval.estimate == pytest.approx(7 / 4)
    assert (interval.low, interval.high) == pytest.approx((1.0, 2.0))  # all draws of the one, all draws of the other


def test_statistic_equals_mean_and_ratio() -> None:
    rng = np.random.default_rng(15)
    sums, weights = rng.random(40), rng.integers(1, 9, 40).astype(float)
    as_ratio = bootstrap_statistic(np.column_stack([sums, weights]), lambda s: s[..., 0] / s[..., 1], seed=2)
    assert as_ratio == bootstrap_ratio(sums.tolist(), weights.tolist(), seed=2)
    as_mean = bootstrap_statistic(sums[:, None], lambda s: s[..., 0] / 40, seed=2)
    mean = bootstrap_mean(sums.tolist(), seed=2)
    assert (as_mean.estimate, as_mean.low, as_mean.high) == pytest.approx((mean.estimate, mean.low, mean.high))


def _bleu_2(sums_K: np.ndarray) -> np.ndarray:
    """Columns: matches and n-grams of order 1 and 2, length of answer and reference."""
    precision = np.sqrt(sums_K[..., 0] / sums_K[..., 1] * sums_K[..., 2] / sums_K[..., 3])
    return precision * np.exp(np.minimum(0.0, 1 - sums_K[..., 5] / sums_K[..., 4]))


def test_corpus_statistic_equals_a_plain_loop() -> None:
    rng = np.random.default_rng(16)
    lengths, references = rng.integers(8, 30, 50), rng.integers(8, 30, 50)
    ones, twos = rng.binomial(lengths, 0.6), rng.binomial(lengths - 1, 0.4)
    rows = np.column_stack([ones, lengths, twos, lengths - 1, lengths, references])
    ours = bootstrap_statistic(rows, _bleu_2, num_resamples=2_000, seed=4)

    draws = np.random.default_rng(4).integers(0, 50, size=(2_000, 50))
    looped = np.array([float(_bleu_2(sum(rows[i] for i in drawn))) for drawn in draws])
    total = float(_bleu_2(sum(rows)))
    left_out = np.array([float(_bleu_2(sum(rows[j] for j in range(50) if j != i))) for i in range(50)])
    stats = pytest.importorskip("scipy.stats")
    z = math.sqrt(50 / 49) * stats.t.ppf(0.025, 49)
    bias = stats.norm.ppf((looped < total).mean())
    away = left_out.mean() - left_out
    skew = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    for sign, limit, outer in ((1, ours.low, min), (-1, ours.high, max)):
        percentile = np.quantile(looped, stats.norm.cdf(bias + (bias + sign * z) / (1 - skew * (bias + sign * z))))
        assert limit == pytest.approx(outer(total + sign * z * looped.std(), percentile), abs=2e-4)
    assert ours.estimate == pytest.approx(total)


def test_fewer_than_thirty_are_unreliable() -> None:
    assert FEWEST_ITEMS == 30
    assert [interval_is_reliable(n) for n in (0, 29, 30)] == [False, False, True]


def test_one_item_has_no_width() -> None:
    assert bootstrap_mean([0.4]) == Interval(0.4, 0.4, 0.4)
    clustered = bootstrap_mean([0.2, 0.6], clusters=["one", "one"])
    assert (clustered.low, clustered.high) == pytest.approx((0.4, 0.4))


def test_what_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(ValueError, match="as many"):
        paired_bootstrap([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="as many"):
        bootstrap_ratio([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="nothing"):
        bootstrap_mean([])
    with pytest.raises(ValueError, match="2 values, 1 clusters"):
        bootstrap_mean([0.1, 0.2], clusters=["a"])
    with pytest.raises(ValueError, match="1 of 2 items have no finite value"):
        bootstrap_mean([0.1, math.nan])
    with pytest.raises(ValueError, match="without counts"), np.errstate(invalid="ignore", divide="ignore"):
        bootstrap_ratio([1.0, 0.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="without counts"), np.errstate(invalid="ignore", divide="ignore"):
        bootstrap_ratio([1.0, *[0.0] * 9], [1.0, *[0.0] * 9], num_resamples=2, seed=1)  # both draws hold the one with counts
