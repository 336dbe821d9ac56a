"""Prompts that begin alike are laid out as one tree, so that the common part is computed and kept once.

A tree is one sequence: the shared prefix, then each row's own suffix. Segment 0 is the prefix, segment k > 0 the k-th row; a token
sees the prefix and its own segment, nothing else. Questions put to one passage, examples in a prompt and the options of a multiple
choice all have this shape.

Source    tree attention as in SpecInfer (Miao et al. 2023, arXiv:2305.09781, section 4.2), here for shared prefixes
We differ one mask serves prefill and decoding; rows leave the tree when they finish
"""

from collections.abc import Sequence
from dataclasses import dataclass

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Tree:
    prefix: Tokens
    rows: tuple[int, ...]  # positions in the caller's list
    suffixes: tuple[Tokens, ...]  # one per row, never empty

    @property
    def num_tokens(self) -> int:
        return len(self.prefix) + sum(len(s) for s in self.suffixes)


def share_prefixes(prompts: Sequence[Tokens], *, max_rows: int = 16, max_suffix_tokens: int = 512, min_shared: int = 32) -> list[Tree]:
    """Group prompts that share at least `min_shared` first tokens and half their length; longest trees first.

    The own parts of a tree's rows stay within `max_suffix_tokens`: attention over them grows with the square of their sum.
    """
    trees: list[Tree] = []
    group: list[int] = []
    cut = 0  # length of the group's prefix: every row keeps at least its last token for itself

    def close() -> None:
        if group:
            own_from = cut if len(group) > 1 else 0
            trees.append(Tree(prompts[group[0]][:own_from], tuple(group), tuple(prompts[i][own_from:] for i in group)))

    for i in sorted(range(len(prompts)), key=lambda i: prompts[i]):
        if group:
            shared = min(cut, common_length(prompts[group[0]], prompts[i]), len(prompts[i]) - 1)
            worth = shared >= min_shared and shared >= max(len(prompts[i]), len(prompts[group[0]])) // 2
            own = sum(len(prompts[j]) - shared for j in (*group, i))
            if worth and len(group) < max_rows and own <= max_suffix_tokens:
                group.append(i)
                cut = shared
                continue
        close()
        group, cut = [i], len(prompts[i]) - 1
    close()
    return sorted(trees, key=lambda t: -t.num_tokens)


def common_length(a: Tokens, b: Tokens) -> int:
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n


def waves(trees: Sequence[Tree], *, max_rows: int, max_tokens: int) -> list[list[Tree]]:
    """Trees that run together: at most `max_rows` rows and `max_tokens` prompt tokens, both with their padding.

    In a wave every tree is padded to the most rows and the most tokens among them, so that trees of like shape go together: at most
    half of the rows are padding. A tree beyond the limits is alone.
    """
    made: list[list[Tree]] = []
    for tree in sorted(trees, key=lambda t: (-len(t.rows), -t.num_tokens)):
        wave = [*made[-1], tree] if made else []
        padded_rows = len(wave) * max((len(t.rows) for t in wave), default=0)
        padded_tokens = len(wave) * max((t.num_tokens for t in wave), default=0)
        if wave and padded_rows <= min(max_rows, 2 * sum(len(t.rows) for t in wave)) and padded_tokens <= max_tokens:
            made[-1].append(tree)
        else:
            made.append([tree])
    return made
