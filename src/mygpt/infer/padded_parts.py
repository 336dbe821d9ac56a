"""Rows of unlike length in several parts: what is computed for padding against what one more part costs."""

from collections.abc import Sequence

import torch

_PASS_TOKENS = {"cpu": 128}  # SmolLM2-135M, one core: 45 in float32, 160 in bfloat16
_PASS_TOKENS_ELSEWHERE = 4_096  # on a GPU, where few tokens take as long as many: not measured


def part_sizes(lengths: Sequence[int], *, one_more: int, most: int | None = None) -> list[int]:
    """How many of the rows, whose lengths go down, each part takes: the cheapest, if a part of n costs n times its longest and `one_more`.

    A part of several rows is at most `most` long with its padding.
    """
    cheapest = [(0, 0)]  # of the first n rows: the cost, and where their last part begins
    for n in range(1, len(lengths) + 1):
        found = []
        for i in range(n - 1, -1, -1):
            if most is not None and i < n - 1 and (n - i) * lengths[i] > most:
                break
            found.append((cheapest[i][0] + (n - i) * lengths[i] + one_more, i))
        cheapest.append(min(found))
    sizes, n = [], len(lengths)
    while n:
        sizes.append(n - cheapest[n][1])
        n = cheapest[n][1]
    return sizes[::-1]


def pass_tokens(device: torch.device) -> int:
    """What one more forward pass costs, in tokens of a long one."""
    return _PASS_TOKENS.get(device.type, _PASS_TOKENS_ELSEWHERE)
