"""Student's interval of a mean: mean -+ t * s / sqrt(n), with s from n - 1 and t from n - 1 degrees of freedom.

Exact for normal values, good for any with little skew from about 30 items on.

Source: Student 1908, "The probable error of a mean".
"""

import math
from collections.abc import Sequence

import numpy as np

from mygpt.metrics.bootstrap import Interval
from mygpt.metrics.student_t import t_quantile


def t_interval(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """Of independent items, two or more."""
    values_N = np.asarray(values, dtype=np.float64)
    if len(values_N) < 2:
        raise ValueError(f"an interval of a mean needs two values or more: {len(values_N)}")
    mean, error = float(values_N.mean()), float(values_N.std(ddof=1)) / math.sqrt(len(values_N))
    reach = t_quantile((1 + level) / 2, len(values_N) - 1) * error
    return Interval(mean, mean - reach, mean + reach)
