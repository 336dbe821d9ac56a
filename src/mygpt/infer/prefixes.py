"""Prompts that begin alike are laid out as one tree, so that the common part is computed and kept once.

A tree is one sequence: the shared prefix, then each row's own suffix. Segment 0 is the prefix, segment k > 0 the k-th row; a token
sees the prefix and its own segment, nothing else. Questions put to one passage, examples in a prompt and the options of a multiple
choice all have this shape.

Source    tree attention as in SpecInfer (Miao et al. 2023, arXiv:2305.09781, section 4.2), here for shared prefixes
We differ one mask serves prefill and decoding; rows leave the tree when they finish
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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


def share_stems(trees: Sequence[Tree], *, min_shared: int = 12) -> list[tuple[Tokens, Tree]]:
    """Each tree with the stem it shares with others, and what of the tree comes after it; () for none. In the order of `trees`.

    Neighbours in sorted order share one that has `min_shared` tokens; one that shares twice as much with the next begins another.
    """
    heads = [tree.prefix or tree.suffixes[0][:-1] for tree in trees]
    order = sorted(range(len(trees)), key=lambda i: heads[i])
    with_next = [common_length(heads[i], heads[j]) for i, j in pairwise(order)] + [0]
    stem_of: list[Tokens] = [()] * len(trees)
    group: list[int] = []
    cut = 0

    def close() -> None:
        for i in group if len(group) > 1 else ():
            stem_of[i] = heads[group[0]][:cut]

    for n, i in enumerate(order):
        if group:
            shared = min(cut, with_next[n - 1])
            is_near = len(group) == 1 or 2 * shared >= cut
            if shared >= min_shared and is_near and with_next[n] <= 2 * shared:
                group.append(i)
                cut = shared
                continue
        close()
        group, cut = [i], len(heads[i])
    close()
    return [(stem, _after(tree, len(stem))) for stem, tree in zip(stem_of, trees, strict=True)]


def _after(tree: Tree, length: int) -> Tree:
    if tree.prefix:
        return Tree(tree.prefix[length:], tree.rows, tree.suffixes)
    return Tree((), tree.rows, tuple(suffix[length:] for suffix in tree.suffixes))


def common_length(a: Tokens, b: Tokens) -> int:
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n
