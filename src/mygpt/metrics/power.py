"""Power: how many items show a difference, and what difference so many items show.

A limit at t standard errors clears zero with chance `power` from the smallest n at which

    difference * sqrt(n) / sd >= t * (1 - k / (8 n)) + z_power * sqrt(1 + t^2 k / (4 n)),    k = kurtosis - 1

t being Student's, two-sided, of n - 1 degrees of freedom. The terms with k are what the plain ((z + z_power) sd / difference)^2 forgets:
the standard error is itself estimated, a little too low as a rule (the first) and uncertain (the second), and the worse, the more the
differences rest on a few items (kurtosis: 3 of normal ones, 1 / share of those that differ where most do not). sd is that of the paired
differences, item by item. For 0/1 scores with shares b lost and c won, sd^2 = b + c - (c - b)^2. With several items a source, n counts
sources and sd is that of their means. For non-inferiority see `non_inferiority.items_for_margin`.

An exact test of counts (McNemar's) estimates no error, but moves in steps of one item and stays below its level: it sees a difference d as
d - 1 / n. With `step=1` that is paid for: n = ((z + z_power) sd / d)^2 becomes n/4 * (1 + sqrt(1 + 4 / (n d)))^2.

Source: Cohen 1988, "Statistical power analysis for the behavioral sciences", chapter 2; for normal scores (k = 2) the formula is that of
Abramowitz and Stegun 1964, 26.7.10, for the noncentral t; for others, mean and variance of a standard deviation: Cramer 1946,
"Mathematical methods of statistics", 27.4; the step: Fleiss, Tytun and Ury 1980, "A simple approximation for calculating sample sizes for
comparing independent proportions", here of paired counts.
We differ: Cohen's tables are for normal scores only; this gives the same numbers there (34 for half a standard deviation) and others'
tails their due. Skew is left out.
"""

import math
from statistics import NormalDist

import numpy as np

from mygpt.metrics.student_t import t_quantile

NORMAL_KURTOSIS = 3.0
_SERIES_FROM = 1_000  # degrees of freedom, from which two terms of the quantile's series are exact to 6 digits


def items_needed(
    difference: float,
    sd: float,
    *,
    power: float = 0.8,
    level: float = 0.95,
    step: float = 0.0,
    kurtosis: float = NORMAL_KURTOSIS,
) -> int:
    """Items after which a true `difference` is found with chance `power`; two at least."""
    if difference == 0 or not math.isfinite(difference):
        raise ValueError(f"no number of items shows a difference of {difference}")

    def shows(n: int) -> bool:
        return detectable_difference(n, sd, power=power, level=level, step=step, kurtosis=kurtosis) <= abs(difference) * (1 + 1e-12)

    too_few, enough = 1, 2
    while not shows(enough):
        too_few, enough = enough, 2 * enough
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if shows(middle) else (middle, enough)
    return enough


def detectable_difference(
    num_items: int,
    sd: float,
    *,
    power: float = 0.8,
    level: float = 0.95,
    step: float = 0.0,
    kurtosis: float = NORMAL_KURTOSIS,
) -> float:
    """The smallest true difference that so many items show with chance `power`."""
    if num_items < 1:
        raise ValueError(f"nothing shows in {num_items} items")
    z_power = NormalDist().inv_cdf(power)
    if step:
        reach = NormalDist().inv_cdf((1 + level) / 2) + z_power
    else:
        t = quantile((1 + level) / 2, max(1, num_items - 1))
        reach = t * (1 - _excess(kurtosis, num_items) / (8 * num_items)) + z_power * noise_of_error(t, kurtosis, num_items)
    return reach * _checked(sd) / math.sqrt(num_items) + step / num_items


def noise_of_error(reach: float, kurtosis: float, num_items: int) -> float:
    """Standard deviation of (mean - reach * its estimated error), in errors: 1 where the error is known."""
    return math.sqrt(1 + reach**2 * _excess(kurtosis, num_items) / (4 * num_items))


def kurtosis_of(values_N: np.ndarray) -> float:
    """Fourth moment about the mean over the squared variance; of values that are all alike, that of normal ones."""
    apart_N = values_N - values_N.mean()
    variance = float((apart_N**2).mean())
    return float((apart_N**4).mean()) / variance**2 if variance > 0 else NORMAL_KURTOSIS


def quantile(chance: float, dof: int) -> float:
    """Student's t; far out by its series, whose cost does not grow with `dof`."""
    if dof < _SERIES_FROM:
        return t_quantile(chance, dof)
    z = NormalDist().inv_cdf(chance)
    return z + (z**3 + z) / (4 * dof) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * dof**2)


def _excess(kurtosis: float, num_items: int) -> float:
    """Over 1, the least there is; n items have n at most."""
    return max(0.0, min(kurtosis, num_items) - 1)


def _checked(sd: float) -> float:
    if not (sd >= 0 and math.isfinite(sd)):
        raise ValueError(f"a standard deviation is a number of 0 or more: {sd}")
    return sd
