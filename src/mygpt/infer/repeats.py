"""Equal requests in one call are different draws: which occurrence of its like each one is."""

from collections import Counter
from collections.abc import Hashable, Iterable


def occurrences(items: Iterable[Hashable]) -> list[int]:
    """0 for the first of equal items, 1 for the second, and so on: `[a, b, a]` gives `[0, 0, 1]`."""
    seen: Counter[Hashable] = Counter()
    numbers = []
    for item in items:
        numbers.append(seen[item])
        seen[item] += 1
    return numbers
