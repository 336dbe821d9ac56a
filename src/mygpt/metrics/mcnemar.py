"""McNemar's exact test: of the items on which two models differ, is one of them ahead more often than chance would have it?

With b items lost and c won, p = P(a fair coin shows at most min(b, c) heads in b + c throws), doubled, at most 1.

Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions"; exact binomial form.
"""

from math import comb


def mcnemar_exact(lost: int, won: int) -> float:
    """Two-sided p-value; 1.0 when nothing changed."""
    num_changed = lost + won
    tail = sum(comb(num_changed, k) for k in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / 2**num_changed)
