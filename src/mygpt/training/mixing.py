"""Several tasks in one training set: which row comes when.

    p_i = min(n_i, K)^(1/T) / sum over tasks      T = 1: as many as there are; T large: all tasks alike; K: no task counts for more rows

A mixture of N rows has p_i N rows of task i, to one row; a task's rows are gone through whole, in an order of its own, before any comes
again.

Source     temperature: Arivazhagan et al. 2019, arXiv:1907.05019, section 4; the limit K: Raffel et al. 2019, arXiv:1910.10683,
           section 3.5.2
We differ  drawn without chance in the numbers (largest remainders: Hamilton 1792), so that a small task is never missed by bad luck; only
           the order is random, and depends on the seed alone
"""

import random
from collections.abc import Sequence

from mygpt.core.errors import UsageError


def mixing_rates(sizes: Sequence[int], *, temperature: float, limit: int | None = None) -> list[float]:
    """The share of each task. `mixing_rates([1, 4], temperature=2)` -> `[1/3, 2/3]`."""
    if not sizes or min(sizes) < 1:
        raise UsageError(f"A mixture of tasks with {list(sizes)} rows has an empty one.", fix="Leave the empty dataset out.")
    weights = [min(size, limit or size) ** (1 / temperature) for size in sizes]
    return [weight / sum(weights) for weight in weights]


def shared_out(total: int, rates: Sequence[float]) -> list[int]:
    """`total` rows by these shares, whole rows each: rounded down, what is left goes to the largest remainders."""
    exact = [total * rate for rate in rates]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(rates)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def mixed(sizes: Sequence[int], counts: Sequence[int], *, order: random.Random) -> list[tuple[int, int]]:
    """(task, row) of each place: `counts[i]` rows of task i, all places alike likely for each."""
    drawn = [(task, row) for task, (size, count) in enumerate(zip(sizes, counts, strict=True)) for row in _passes(size, count, order)]
    order.shuffle(drawn)
    return drawn


def _passes(size: int, count: int, order: random.Random) -> list[int]:
    """`count` rows of `size`: whole passes, and a part of the last."""
    rows: list[int] = []
    while len(rows) < count:
        rows += order.sample(range(size), min(size, count - len(rows)))
    return rows
