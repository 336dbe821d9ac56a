"""Non-inferiority: is it shown that the new model loses less than a stated margin? And equivalence: neither loses nor gains as much.

"No significant difference" shows nothing: with few items nothing is significant. Here the burden is the other way round: the claim holds
when the lower limit of after - before lies above -margin, and with few items it does not.

    non_inferiority    lower limit of one side at `level`: true losses of the margin are passed with chance 1 - level at most
    equivalence        both limits within -margin and margin, each at `level` (two one-sided tests, TOST)

The interval shown has `level` on each side: 90 % for 95 %. p is the chance at which its limit touches the margin. Higher scores are better;
for a score where lower is better swap `after` and `before`.

Source: Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power approach"; the limits are those of `bootstrap`.
Two items more, one lost and one won, as in Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial
proportions based on paired data": sixty equal answers out of sixty would show a margin of nothing at all, though three answers in a hundred
may be lost and none of them be among the sixty.
We differ: they add them to 0/1 scores. On other scores the two differ by the most that any item did, and, the more items are alike, by
more of what one can lose (`most_lost`), since the next to differ may differ by that: seen * (most_lost / seen)^(share alike / 2); by all
of it where none differs. Limits are drawn with the two and without, and the wider ones count: `benchmarks/statistics.py` measures how often
a true loss of the margin passes.

How many items show it of a model that loses nothing (`items_for_margin`): the smallest n at which the estimate, as low as one time in five,
still has its limit within the margin. The limit is that of n items and the two more, whose spread counts too, and of the wider of two
intervals, a twentieth beyond either; and it moves with the spread of the sample (`power.noise_of_error`). The usual
((z + z') sd / margin)^2 forgets all three, and showed it 73 to 77 times in a hundred.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from mygpt.metrics.bootstrap import Interval, limits, lower_limit, resampled_sums, sum_clusters
from mygpt.metrics.power import NORMAL_KURTOSIS, noise_of_error, quantile
from mygpt.metrics.student_t import t_cdf, t_quantile

_WIDER = 1.05  # the wider of two intervals against either


@dataclass(frozen=True)
class NonInferiority:
    """`holds` when p_value < 1 - level, which is when the limit lies within the margin."""

    interval: Interval  # of after - before
    margin: float
    p_value: float
    holds: bool
    added: float  # what the two items more differ by: one won it, one lost it


def non_inferiority(
    after: Sequence[float],
    before: Sequence[float],
    *,
    margin: float,
    clusters: Sequence[str] = (),
    level: float = 0.95,
    most_lost: float = 1.0,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> NonInferiority:
    """Of mean(after - before) over the same items, higher better: is it above -margin? `most_lost`: what one item can lose at most, 1 for
    shares, F1, ROUGE and BLEU."""
    drawn, added = _draw(after, before, margin, clusters, most_lost, num_resamples, seed)
    interval = _interval(drawn, after, before, level)
    return NonInferiority(interval, margin, max(d.chance_below(-margin) for d in drawn), interval.low > -margin, added)


def equivalence(
    after: Sequence[float],
    before: Sequence[float],
    *,
    margin: float,
    clusters: Sequence[str] = (),
    level: float = 0.95,
    most_lost: float = 1.0,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> NonInferiority:
    """Of mean(after - before) over the same items: is it within -margin and margin? p is the larger of the two sides'."""
    drawn, added = _draw(after, before, margin, clusters, most_lost, num_resamples, seed)
    interval = _interval(drawn, after, before, level)
    p_value = max(side.chance_below(-margin) for d in drawn for side in (d, d.mirrored()))
    return NonInferiority(interval, margin, p_value, -margin < interval.low and interval.high < margin, added)


def items_for_margin(
    margin: float, sd: float, added: float, *, power: float = 0.8, level: float = 0.95, kurtosis: float = NORMAL_KURTOSIS
) -> int:
    """Items (clusters) after which a model that loses nothing is shown, with chance `power`, to lose less than `margin`.

    `sd` and `kurtosis`: of the paired differences; `added`: as `non_inferiority` found it. Past 400 items in steps of half a percent.
    """
    z_power = NormalDist().inv_cdf(power)
    n = max(2, int(((NormalDist().inv_cdf(level) + z_power) * sd / margin) ** 2))
    while True:
        error = math.sqrt((n * sd**2 + 2 * added**2) / ((n + 2) * (n + 1)))
        reach = _WIDER * quantile(level, n + 1)
        by_chance = z_power * sd * math.sqrt(n) / (n + 2) * noise_of_error(reach, kurtosis, n)
        if by_chance + reach * error <= margin:
            return n
        n += max(1, n // 200)


@dataclass(frozen=True)
class _Drawn:
    resampled_R: np.ndarray
    estimate: np.ndarray
    left_out_N: np.ndarray

    def mirrored(self) -> "_Drawn":
        return _Drawn(-self.resampled_R, -self.estimate, -self.left_out_N)

    def chance_below(self, threshold: float) -> float:
        """Where the lower limit touches the threshold, by halving; no less than one resample in all."""
        dof = len(self.left_out_N) - 1
        low = t_quantile(1 / (len(self.resampled_R) + 1), dof)
        high = -low
        for _ in range(40):
            middle = (low + high) / 2
            above = lower_limit(self.resampled_R, self.estimate, self.left_out_N, middle) > threshold
            low, high = (low, middle) if above else (middle, high)
        return t_cdf(high, dof)


def _interval(drawn: Sequence[_Drawn], after: Sequence[float], before: Sequence[float], level: float) -> Interval:
    both = [limits(d.resampled_R, d.estimate, d.left_out_N, 2 * level - 1) for d in drawn]
    return Interval(float(np.subtract(after, before).mean()), float(min(low for low, _ in both)), float(max(high for _, high in both)))


def _draw(
    after: Sequence[float],
    before: Sequence[float],
    margin: float,
    clusters: Sequence[str],
    most_lost: float,
    num_resamples: int,
    seed: int,
) -> tuple[tuple[_Drawn, _Drawn], float]:
    """Without the two items more, and with them; and what they differ by, each."""
    if len(after) != len(before):
        raise ValueError(f"paired values must be as many: {len(after)} and {len(before)}")
    if not margin > 0 or not most_lost > 0:
        raise ValueError(f"a margin, and the most that can be lost, are above 0: {margin}, {most_lost}")
    differences_N = np.subtract(after, before).astype(np.float64)
    rows_N2 = sum_clusters(np.stack([differences_N, np.ones(len(differences_N))], axis=1), clusters)
    if len(rows_N2) < 2:
        raise ValueError(f"one item, or one cluster of {len(after)}, shows nothing of how far another would lie")
    size = float(rows_N2[:, 1].mean())
    seen, most, alike = float(np.abs(rows_N2[:, 0]).max()), most_lost * size, float((rows_N2[:, 0] == 0).mean())
    added = seen * (most / seen) ** (alike / 2) if seen else most
    with_two_more_N2 = np.concatenate([rows_N2, [[added, size], [-added, size]]])
    return (_resample(rows_N2, num_resamples, seed), _resample(with_two_more_N2, num_resamples, seed)), added / size


def _resample(rows_N2: np.ndarray, num_resamples: int, seed: int) -> _Drawn:
    total_2, summed_R2 = rows_N2.sum(axis=0), resampled_sums(rows_N2, num_resamples, seed)
    left_out_N2 = total_2 - rows_N2
    return _Drawn(summed_R2[:, 0] / summed_R2[:, 1], np.asarray(total_2[0] / total_2[1]), left_out_N2[:, 0] / left_out_N2[:, 1])
