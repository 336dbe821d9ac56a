"""Student's t distribution for whole degrees of freedom: chance of a value, and value at a chance.

With angle = arctan(t / sqrt(dof)), the chance of a value between -t and t is a finite series in the angle's sine and cosine.

Source: Abramowitz and Stegun 1964, "Handbook of mathematical functions", 26.7.3 (odd) and 26.7.4 (even degrees of freedom).
We differ: the value at a chance is found by halving an interval of angles, to the last bit. SciPy has both; intervals need no SciPy.
"""

import math
from functools import lru_cache

import numpy as np


def t_cdf(t: float, dof: int) -> float:
    """P(T <= t)."""
    if dof < 1:
        raise ValueError(f"degrees of freedom must be 1 or more: {dof}")
    return (1 + _within(math.atan(t / math.sqrt(dof)), dof)) / 2


@lru_cache(maxsize=1_024)
def t_quantile(chance: float, dof: int) -> float:
    """The t below which a value falls with this chance."""
    if dof < 1 or not 0 < chance < 1:
        raise ValueError(f"a chance between 0 and 1 and 1 or more degrees of freedom: {chance}, {dof}")
    if chance < 0.5:
        return -t_quantile(1 - chance, dof)
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if (1 + _within(middle, dof)) / 2 < chance else (low, middle)
    return math.sqrt(dof) * math.tan(high)


def _within(angle: float, dof: int) -> float:
    """P(-t <= T <= t); negative for a negative angle."""
    sine, cosine = math.sin(angle), math.cos(angle)
    k = np.arange(1, (dof - 1) // 2 + 1 - (dof % 2))
    ratios = 2 * k / (2 * k + 1) if dof % 2 else (2 * k - 1) / (2 * k)
    series = 1 + float(np.cumprod(ratios * cosine**2).sum())
    if dof == 1:
        return 2 / math.pi * angle
    return 2 / math.pi * (angle + sine * cosine * series) if dof % 2 else sine * series
