"""Answers to one prompt in one row, so that the prompt is computed once for all of them when they are learnt from, too.

    micro_batches = planted(rows, made, ...)                 micro-batches of trees: a prompt and some of its answers
    batch = tree_batch([tree, ...], made, policy)
    logprobs_N = answer_logprobs(policy.module, batch, ...)  of every token that was sampled, answer after answer, with gradients

Sixteen answers of 64 tokens to a prompt of 100 are 2,624 tokens in rows of one each and 1,424 so. Each answer sees the prompt and itself,
nothing else, at the positions that it was sampled at: the numbers are those of a row of its own.

Source     tree attention: Miao et al. 2023, arXiv:2305.09781, section 4.2, here with a backward pass
We differ  trees stay small: attention grows with the square of their size (512 tokens are what this processor's kernel takes)
Dims       B trees   T tokens of the longest   N sampled tokens   D hidden
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mygpt.align.policy import Policy
from mygpt.align.rollouts import Rollout
from mygpt.infer.tree_attention import PADDING, TreeSlots, is_tree_decoder
from mygpt.lm.attention import grouped_attention
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


def planted(rows: Sequence[int], made: Mapping[int, Rollout], *, shares: bool, micro_batch_tokens: int) -> list[list[Tree]]:
    """Micro-batches of trees, of about `micro_batch_tokens` with padding."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for i in rows:
        by_prompt.setdefault(prompt_ids(made[i]), []).append(i)
    trees: list[Tree] = []
    for prompt, group in by_prompt.items():
        lengths = {i: made[i].num_tokens for i in group}
        trees += alike(lengths, most_tokens=TREE_TOKENS - len(prompt)) if shares else [[i] for i in group]
    sizes = [len(prompt_ids(made[tree[0]])) + sum(made[i].num_tokens for i in tree) for tree in trees]
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
    longest = max(len(prompt_ids(made[tree[0]])) + sum(made[i].num_tokens for i in tree) for tree in trees)
    ids_BT = torch.full((len(trees), longest), policy.padding_id)
    positions_BT = torch.zeros_like(ids_BT)
    segments_BT = torch.full_like(ids_BT, PADDING)
    before: list[int] = []
    for b, tree in enumerate(trees):
        prompt = prompt_ids(made[tree[0]])
        at = len(prompt)
        ids_BT[b, :at] = torch.tensor(prompt)
        positions_BT[b, :at] = torch.arange(at)
        segments_BT[b, :at] = 0
        for k, i in enumerate(tree, start=1):
            own = slice(at, at + made[i].num_tokens)
            ids_BT[b, own] = torch.tensor(made[i].answer.token_ids)
            positions_BT[b, own] = torch.arange(len(prompt), len(prompt) + made[i].num_tokens)
            segments_BT[b, own] = k
            before += [b * longest + len(prompt) - 1, *range(b * longest + at, b * longest + own.stop - 1)]
            at = own.stop
    rows = tuple(i for tree in trees for i in tree)
    sampled_N = torch.tensor([token for i in rows for token in made[i].answer.token_ids])
    device, lengths = policy.device, tuple(made[i].num_tokens for i in rows)
    places = (ids_BT.to(device), positions_BT.to(device), segments_BT.to(device))
    return TreeBatch(*places, torch.tensor(before, device=device), sampled_N.to(device), rows, lengths)


def answer_logprobs(module: Any, batch: TreeBatch, *, temperature: float, chunk_labels: int | None) -> torch.Tensor:
    """(N) float32 in nats, of the distribution at this temperature."""
    hidden_ND = tree_hidden_states(module, batch).flatten(0, 1)[batch.before_N]
    return logprobs_of(module, hidden_ND, batch.sampled_N, temperature=temperature, chunk_labels=chunk_labels)


def tree_hidden_states(module: Any, batch: TreeBatch) -> torch.Tensor:
    """(B, T, D)"""
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
