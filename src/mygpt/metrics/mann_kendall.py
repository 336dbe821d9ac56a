"""Does a series rise or fall, whatever the shape? Mann and Kendall's test, and how steep by Theil and Sen.

    S = sum over pairs i < j of sign(x_j - x_i)        z = (S - sign(S)) / sqrt(var S)
    var S = (n (n-1) (2n+5) - sum over ties of t (t-1) (2t+5)) / 18

Source    Mann 1945, "Nonparametric tests against trend"; Kendall 1975, "Rank correlation methods"; Sen 1968, "Estimates of the regression
          coefficient based on Kendall's tau"
Limits    the p-values are of the normal approximation, good from 8 values on, and of values that err independently of one another
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Trend:
    rising_p: float  # one-sided: the chance of so much rise, were there none
    falling_p: float
    slope: float  # median over pairs of the difference, a step
    num_values: int

    @property
    def change(self) -> float:
        """From the first value to the last."""
        return self.slope * (self.num_values - 1)


def mann_kendall(values: Sequence[float]) -> Trend:
    """Raises ValueError for fewer than two values."""
    values_N = np.asarray(values, dtype=np.float64)
    n = len(values_N)
    if n < 2:
        raise ValueError(f"a trend needs two values or more: {n}")
    first, second = np.triu_indices(n, 1)
    differences = values_N[second] - values_N[first]
    s = float(np.sign(differences).sum())
    ties = np.unique(values_N, return_counts=True)[1].astype(np.float64)
    variance = float(n * (n - 1) * (2 * n + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18
    slope = float(np.median(differences / (second - first)))
    if variance <= 0:  # all alike
        return Trend(1.0, 1.0, slope, n)
    rising, falling = (_upper_tail((sign * s - 1) / math.sqrt(variance)) for sign in (1, -1))
    return Trend(rising, falling, slope, n)


def _upper_tail(z: float) -> float:
    return 0.5 * math.erfc(z / math.sqrt(2))
