"""Power: how many items show a difference, and what difference so many items show.

n = ((z_level + z_power) * sd / difference)^2, with z_level two-sided; sd is that of the paired differences, item by item. For 0/1 scores
with shares b lost and c won, sd^2 = b + c - (c - b)^2. With several items a source, n counts sources and sd is that of their means. For
non-inferiority see `non_inferiority.items_for_margin`.

An exact test of counts (McNemar's) moves in steps of one item and stays below its level: it sees a difference d as d - 1 / n. With
`step=1` that is paid for: n becomes n/4 * (1 + sqrt(1 + 4 / (n d)))^2.

Source: Cohen 1988, "Statistical power analysis for the behavioral sciences", chapter 2, by the normal approximation; the step: Fleiss,
Tytun and Ury 1980, "A simple approximation for calculating sample sizes for comparing independent proportions", here of paired counts.
At fewer than about 20 items Student's t asks for two more.
"""

import math
from statistics import NormalDist


def items_needed(difference: float, sd: float, *, power: float = 0.8, level: float = 0.95, step: float = 0.0) -> int:
    """Items after which a true `difference` is found with chance `power`; two at least."""
    if difference == 0 or not math.isfinite(difference):
        raise ValueError(f"no number of items shows a difference of {difference}")
    reach = _reach(power, level) * _checked(sd)
    root = (reach + math.sqrt(reach**2 + 4 * abs(difference) * step)) / (2 * abs(difference))  # (difference - step / n) sqrt(n) = reach
    return max(2, math.ceil(root**2 - 1e-9))


def detectable_difference(num_items: int, sd: float, *, power: float = 0.8, level: float = 0.95, step: float = 0.0) -> float:
    """The smallest true difference that so many items show with chance `power`."""
    if num_items < 1:
        raise ValueError(f"nothing shows in {num_items} items")
    return _reach(power, level) * _checked(sd) / math.sqrt(num_items) + step / num_items


def _reach(power: float, level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2) + NormalDist().inv_cdf(power)


def _checked(sd: float) -> float:
    if not (sd >= 0 and math.isfinite(sd)):
        raise ValueError(f"a standard deviation is a number of 0 or more: {sd}")
    return sd
