"""Wilson's interval: what share of right answers n items allow for.

(p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), with p = successes / n and z the normal quantile of the level: the shares that
a score test does not reject. Unlike p -+ 2 standard errors it stays within 0 and 1 and has a width when all answers are right.

Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference"; without continuity correction.
"""

import math
from statistics import NormalDist

from mygpt.metrics.bootstrap import Interval


def wilson(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Of independent items; where several items share a source, use `bootstrap_mean` with clusters."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"a share needs items, and no more successes than items: {successes} of {n}")
    share, z = successes / n, NormalDist().inv_cdf((1 + level) / 2)
    middle, reach = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (middle - reach) / (1 + z * z / n), (middle + reach) / (1 + z * z / n)
    return Interval(share, low if successes else 0.0, high if successes < n else 1.0)
