"""Rows of unlike length in several parts: what is computed for padding against what one more part costs."""

from collections.abc import Sequence

import numpy as np
import torch

_PASS_TOKENS = {"cpu": 128}  # SmolLM2-135M, one core: 45 in float32, 160 in bfloat16
_PASS_TOKENS_ELSEWHERE = 4_096  # on a GPU: 1.2B on an H200 starts a pass in 21 ms, in which it computes about so many


def part_sizes(lengths: Sequence[int], *, one_more: int, most: int | None = None) -> list[int]:
    """How many of the rows, whose lengths go down, each part takes: the cheapest, if a part of n costs n times its longest and `one_more`.

    A part of several rows is at most `most` long with its padding.
    """
    longest_N, before_N = np.array(lengths, dtype=np.int64), np.arange(len(lengths))
    cheapest, begins = np.zeros(len(lengths) + 1, dtype=np.int64), [0]  # of the first n rows: the cost, and where their last part begins
    low = 0  # no part can begin earlier
    for n in range(1, len(lengths) + 1):
        while most is not None and low < n - 1 and (n - low) * lengths[low] > most:
            low += 1
        costs = cheapest[low:n] + (n - before_N[low:n]) * longest_N[low:n] + one_more
        begins.append(low + int(costs.argmin()))
        cheapest[n] = costs.min()
    sizes, n = [], len(lengths)
    while n:
        sizes.append(n - begins[n])
        n = begins[n]
    return sizes[::-1]


def pass_tokens(device: torch.device) -> int:
    """What one more forward pass costs, in tokens of a long one."""
    return _PASS_TOKENS.get(device.type, _PASS_TOKENS_ELSEWHERE)
