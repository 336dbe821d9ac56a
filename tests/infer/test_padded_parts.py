"""How rows of unlike length are parted: sums worked by hand, and no way of cutting is cheaper."""

from itertools import combinations, pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from mygpt.infer.padded_parts import part_sizes, pass_tokens


def test_by_hand() -> None:
    """Where a part costs 1,000 more: 20 rows in one are 8,000 + 1,000, in two 4,000 + 1,000 + 2,000."""
    assert part_sizes([400] * 10 + [100] * 10, one_more=1_000) == [10, 10]
    assert part_sizes([400, 400, 100, 100], one_more=1_000) == [4]
    assert part_sizes([3000, *[100] * 9], one_more=1_000) == [1, 9]
    assert part_sizes([7], one_more=1_000) == [1]
    assert part_sizes([], one_more=1_000) == []


def test_what_a_part_may_hold() -> None:
    assert part_sizes([10] * 7, one_more=1, most=30) == [1, 3, 3]
    assert part_sizes([50, 10, 10], one_more=1_000, most=30) == [1, 2]  # a long one is alone


@given(st.lists(st.integers(1, 60), max_size=7), st.integers(0, 80), st.integers(1, 150))
def test_no_other_cuts_are_cheaper(given_lengths: list[int], one_more: int, most: int) -> None:
    lengths = sorted(given_lengths, reverse=True)
    sizes = part_sizes(lengths, one_more=one_more, most=most)
    assert sum(sizes) == len(lengths) and all(sizes)

    def cost(ends: list[int]) -> float:
        parts = [lengths[start:end] for start, end in pairwise([0, *ends])]
        fits = all(len(part) == 1 or len(part) * part[0] <= most for part in parts)
        return sum(len(part) * part[0] + one_more for part in parts) if fits else float("inf")

    if lengths:
        found = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        inner = range(1, len(lengths))
        every = ([*ends, len(lengths)] for n in range(len(lengths)) for ends in combinations(inner, n))
        assert cost(found) == min(map(cost, every)) < float("inf")


def test_one_more_pass_costs_more_where_few_tokens_take_as_long_as_many() -> None:
    assert 0 < pass_tokens(torch.device("cpu")) < pass_tokens(torch.device("cuda"))
