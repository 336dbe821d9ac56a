"""Some of many, at even distances: the same ones each time, and not the first."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def spread(items: Sequence[T], most: int | None) -> list[T]:
    """All of them, or `most`, from the first on; None: all."""
    if most is None or len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]
