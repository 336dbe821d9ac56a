"""Answers to one prompt in one row, so that the prompt is computed once for all of them when they are learnt from, too.

    micro_batches = planted(rows, made, ...)                 micro-batches of trees: a prompt and some of its answers
    batch = tree_batch([tree, ...], made, policy)
    logprobs_N = answer_logprobs(policy.module, batch, ...)  of every token that was sampled, answer after answer, with gradients

Sixteen answers of 64 tokens to a prompt of 100 are 2,624 tokens in rows of one each and 1,424 so. Each answer sees the prompt and itself,
nothing else, at the positions that it was sampled at: the numbers are those of a row of its own.

On a GPU all trees of a micro-batch stand one behind the other in one packed row (`lm/varlen`), without padding or mask, and a tree may have
as many tokens as a micro-batch.

Source     tree attention: Miao et al. 2023, arXiv:2305.09781, section 4.2, here with a backward pass
We differ  trees stay small: attention grows with the square of their size (512 tokens are what this processor's kernel takes)
Dims       B trees   T tokens of the longest   N sampled tokens   D hidden
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from mygpt.align.policy import Policy
from mygpt.align.rollouts import Rollout
from mygpt.infer.tree_attention import PADDING, TreeSlots, is_tree_decoder
from mygpt.lm.attention import grouped_attention
from mygpt.lm.memory import on_device
from mygpt.lm.varlen import PackedRow, varlen_suits
from mygpt.lm.virtual_tokens import has_virtual_tokens
from mygpt.training.batches import cut_by_tokens
from mygpt.training.label_logprobs import logprobs_of
from mygpt.training.losses import hidden_states

TREE_TOKENS = 512
Tree = list[int]  # numbers of rollouts that answer one prompt


@dataclass(frozen=True)
class TreeBatch:
    ids_BT: torch.Tensor
    positions_BT: torch.Tensor
    segments_BT: torch.Tensor  # 0 the prompt, k > 0 the k-th answer
    before_N: torch.Tensor  # place among B * T of the token that each sampled one follows
    sampled_N: torch.Tensor
    rows: tuple[int, ...]  # in the order of `sampled_N`
    lengths: tuple[int, ...]  # of each row: how many of N
    forked: PackedRow | None = None  # the trees of one packed row

    @property
    def has_trees(self) -> bool:
        """Whether any prompt is shared; else every row is as any other text, and is computed as such."""
        return bool((self.segments_BT > 1).any())

    def each(self, values_N: torch.Tensor) -> dict[int, torch.Tensor]:
        """Row by row."""
        return dict(zip(self.rows, values_N.split(self.lengths), strict=True))

    def joined(self, values: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """(N), of values by row: what `each` takes apart."""
        return torch.cat([values[i] for i in self.rows])

    def spread(self, values: Mapping[int, float]) -> torch.Tensor:
        """(N) float32, each row's value at all of its tokens."""
        of_rows = torch.tensor([values[i] for i in self.rows], device=self.ids_BT.device)
        return of_rows.repeat_interleave(torch.tensor(self.lengths, device=self.ids_BT.device))


def prompt_ids(rollout: Rollout) -> tuple[int, ...]:
    return rollout.example.token_ids[: len(rollout.example.token_ids) - rollout.num_tokens]


def takes_trees(module: Any) -> bool:
    """Virtual tokens stand before whole rows, and some architectures count positions for themselves."""
    return is_tree_decoder(module) and not has_virtual_tokens(module)


def packs_trees(module: Any) -> bool:
    """Whether trees stand in one packed row, of which no token is padding."""
    device = next(module.parameters()).device
    return device.type == "cuda" and takes_trees(module) and varlen_suits(module, torch.empty((1, 0), device=device))


def planted(
    rows: Sequence[int], made: Mapping[int, Rollout], *, shares: bool, micro_batch_tokens: int, tree_tokens: int = TREE_TOKENS
) -> list[list[Tree]]:
    """Micro-batches of trees, of about `micro_batch_tokens` with padding; a tree has at most `tree_tokens`."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for i in rows:
        by_prompt.setdefault(prompt_ids(made[i]), []).append(i)
    trees: list[Tree] = []
    for prompt, group in by_prompt.items():
        lengths = {i: made[i].num_tokens for i in group}
        trees += alike(lengths, most_tokens=tree_tokens - len(prompt)) if shares else [[i] for i in group]
    sizes = [_tree_tokens(tree, made) for tree in trees]
    order = sorted(range(len(trees)), key=lambda t: sizes[t])
    return [[trees[t] for t in micro] for micro in cut_by_tokens(order, sizes, micro_batch_tokens)]


def alike(lengths: Mapping[int, int], *, most_tokens: int) -> list[Tree]:
    """As few groups as hold all of these answers, of like size, since a batch pads the short ones. One that is too long is alone."""
    for count in range(max(1, math.ceil(sum(lengths.values()) / max(1, most_tokens))), len(lengths) + 1):
        groups: list[Tree] = [[] for _ in range(count)]
        sizes = [0] * count
        for i in sorted(lengths, key=lambda i: -lengths[i]):
            least = min(range(count), key=lambda g: sizes[g])
            groups[least].append(i)
            sizes[least] += lengths[i]
        if all(size <= most_tokens or len(group) == 1 for size, group in zip(sizes, groups, strict=True)):
            return groups
    return [[i] for i in lengths]


def tree_batch(trees: Sequence[Tree], made: Mapping[int, Rollout], policy: Policy) -> TreeBatch:
    """A tree a row; or all in one, where that is possible."""
    if packs_trees(policy.module):
        return _packed(trees, made, policy.device)
    longest = max(_tree_tokens(tree, made) for tree in trees)
    ids_BT = torch.full((len(trees), longest), policy.padding_id)
    positions_BT = torch.zeros_like(ids_BT)
    segments_BT = torch.full_like(ids_BT, PADDING)
    before: list[int] = []
    for b, tree in enumerate(trees):
        laid = _laid_out(tree, made, first=b * longest)
        own = slice(0, len(laid.ids))
        ids_BT[b, own], positions_BT[b, own] = torch.tensor(laid.ids), torch.tensor(laid.positions)
        segments_BT[b, own] = torch.tensor(laid.segments)
        before += laid.before
    places = (ids_BT.to(policy.device), positions_BT.to(policy.device), segments_BT.to(policy.device))
    return TreeBatch(*places, **_sampled(trees, made, before, policy.device))


def _packed(trees: Sequence[Tree], made: Mapping[int, Rollout], device: torch.device) -> TreeBatch:
    laid, first = [], 0
    for tree in trees:
        laid.append(_laid_out(tree, made, first=first))
        first += len(laid[-1].ids)
    ids, positions, segments, before = ([value for part in parts for value in part] for parts in zip(*laid, strict=True))
    ids_1T, positions_1T, segments_1T = (on_device(torch.tensor([part]), device) for part in (ids, positions, segments))
    forked = PackedRow.forked([(len(prompt_ids(made[tree[0]])), [made[i].num_tokens for i in tree]) for tree in trees], device)
    return TreeBatch(ids_1T, positions_1T, segments_1T, **_sampled(trees, made, before, device), forked=forked)


class _Laid(NamedTuple):
    """A tree as a sequence."""

    ids: list[int]
    positions: list[int]
    segments: list[int]
    before: list[int]  # place of the token that each sampled one follows


def _laid_out(tree: Tree, made: Mapping[int, Rollout], *, first: int) -> _Laid:
    """`first`: the place of its first token."""
    prompt = prompt_ids(made[tree[0]])
    shared = len(prompt)
    laid = _Laid(list(prompt), list(range(shared)), [0] * shared, [])
    for k, i in enumerate(tree, start=1):
        length, at = made[i].num_tokens, first + len(laid.ids)
        laid.before.extend([first + shared - 1, *range(at, at + length - 1)])
        laid.ids.extend(made[i].answer.token_ids)
        laid.positions.extend(range(shared, shared + length))
        laid.segments.extend([k] * length)
    return laid


def _sampled(trees: Sequence[Tree], made: Mapping[int, Rollout], before: Sequence[int], device: torch.device) -> dict[str, Any]:
    """What a TreeBatch says of the tokens that were sampled."""
    rows = tuple(i for tree in trees for i in tree)
    sampled = [token for i in rows for token in made[i].answer.token_ids]
    before_N, sampled_N = (on_device(torch.tensor(part), device) for part in (before, sampled))
    return {"before_N": before_N, "sampled_N": sampled_N, "rows": rows, "lengths": tuple(made[i].num_tokens for i in rows)}


def _tree_tokens(tree: Tree, made: Mapping[int, Rollout]) -> int:
    return len(prompt_ids(made[tree[0]])) + sum(made[i].num_tokens for i in tree)


def answer_logprobs(module: Any, batch: TreeBatch, *, temperature: float, chunk_labels: int | None) -> torch.Tensor:
    """(N) float32 in nats, of the distribution at this temperature."""
    hidden_ND = tree_hidden_states(module, batch).flatten(0, 1)[batch.before_N]
    return logprobs_of(module, hidden_ND, batch.sampled_N, temperature=temperature, chunk_labels=chunk_labels)


def tree_hidden_states(module: Any, batch: TreeBatch) -> torch.Tensor:
    """(B, T, D)"""
    if batch.forked is not None:
        return hidden_states(module, batch.ids_BT, batch.positions_BT, batch.forked)
    if not batch.has_trees:
        return hidden_states(module, batch.ids_BT)
    slots = TreeSlots(module.config)
    slots.add(batch.segments_BT, batch.positions_BT)
    mask: Any = slots.mask(batch.ids_BT.shape[1], module.dtype)
    if module.config._attn_implementation == "sdpa":  # which takes what is seen, and for that the faster kernels are made
        mask = {name: one == 0 for name, one in mask.items()} if isinstance(mask, dict) else mask == 0
    with grouped_attention(module):
        hidden_BTD: torch.Tensor = module.get_decoder()(
            input_ids=batch.ids_BT, position_ids=batch.positions_BT, attention_mask=mask, use_cache=False
        ).last_hidden_state
    return hidden_BTD
