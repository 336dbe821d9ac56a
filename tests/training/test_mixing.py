"""Mixing rates by hand, whole rows, order by seed."""

import random
from collections import Counter

import pytest

from mygpt.core.errors import UsageError
from mygpt.training.mixing import mixed, mixing_rates, shared_out


def test_rates_by_hand() -> None:
    """Sizes 1, 4, 16: by size 1/21, 4/21, 16/21; their square roots 1, 2, 4 at temperature 2; counted as 1, 4, 4 with a limit of 4."""
    sizes = [1, 4, 16]
    assert mixing_rates(sizes, temperature=1) == pytest.approx([1 / 21, 4 / 21, 16 / 21])
    assert mixing_rates(sizes, temperature=2) == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    assert mixing_rates(sizes, temperature=1, limit=4) == pytest.approx([1 / 9, 4 / 9, 4 / 9])
    assert mixing_rates(sizes, temperature=1e9) == pytest.approx([1 / 3] * 3)
    with pytest.raises(UsageError, match=r"with \[3, 0\] rows has an empty one"):
        mixing_rates([3, 0], temperature=1)


def test_shared_out_by_hand() -> None:
    """10 rows by sevenths: 1.43, 2.86, 5.71; the two left over go to the remainders .86 and .71."""
    assert shared_out(10, [1 / 7, 2 / 7, 4 / 7]) == [1, 3, 6]
    for total in range(30):
        assert sum(shared_out(total, [0.5, 0.3, 0.2])) == total


def test_whole_passes_before_any_row_comes_again() -> None:
    drawn = mixed([3, 5], [7, 4], order=random.Random(0))
    assert sorted(Counter(row for task, row in drawn if task == 0).values()) == [2, 2, 3]
    assert sorted(Counter(row for task, row in drawn if task == 1).values()) == [1, 1, 1, 1]
    assert mixed([3, 5], [7, 4], order=random.Random(0)) == drawn != mixed([3, 5], [7, 4], order=random.Random(1))
    first = Counter(mixed([3, 5], [7, 4], order=random.Random(seed))[0][0] for seed in range(400))
    assert abs(first[0] - 400 * 7 / 11) < 40  # four standard deviations: tasks stand mixed, not one after the other
