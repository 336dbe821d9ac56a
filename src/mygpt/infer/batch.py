"""Answers under way together: a batch that loses the rows that finish and takes new prompts into their places.

A batch holds trees (`infer/prefixes`): prompts that begin alike, kept as one sequence. Trees that share a stem (a chat template's opening,
examples before every question) are given the keys and values of that stem, computed once; an adapter's virtual tokens (`lm/virtual_tokens`)
are what every stem and prompt of it begins with. When rows have finished, new trees come in: then what is dead leaves the cache and the
rest is moved together, in lanes of like length.

Source    continuous batching: Yu et al. 2022, "Orca", OSDI (iteration-level scheduling)
We differ new prompts are prefilled by themselves and then join; a sequence's cache is contiguous, not paged: on a CPU attention over it is
          two plain matrix products
Dims      B trees   Q new tokens of a tree   R rows whose next token is chosen   S slots of the cache   D hidden
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch

from mygpt.infer.decode_step import DecodeStep, GraphedStep
from mygpt.infer.kv_cache import LaneCache, Place, SlotCache, regrouped
from mygpt.infer.padded_parts import part_sizes, pass_tokens
from mygpt.infer.prefixes import Tokens, Tree
from mygpt.infer.protocols import Sampling
from mygpt.infer.tree_attention import PADDING, TreeSlots, joined_masks
from mygpt.lm.adapter_rows import adapter_rows
from mygpt.lm.attention import grouped_attention, takes_lanes
from mygpt.lm.fused_decoder import decoded
from mygpt.lm.memory import on_device
from mygpt.lm.virtual_tokens import cache_argument, prefix

_PREFILL_TOKENS = {"cpu": 4_096, "cuda": 32_768}  # padded, computed at once: on a CPU more does not stay in its cache
_STEMS_KEPT = 8
_STEPS_BEFORE_RECORDING = 2  # recording costs about as much as ten steps
_LANE_SLOTS = 1_000  # reading so many takes as long as one more call of attention
_FIRST_TOKENS = {"cpu": 64, "cuda": 256}  # of every answer: room made for them when its prompt comes in; on a GPU more is recorded anew


@dataclass
class Row:
    """One answer under way."""

    index: int  # in the caller's list
    prompt: Tokens
    sampling: Sampling
    generator: torch.Generator
    limit: int  # tokens that the answer may have
    adapter: str = ""  # its name in the module; "" for none
    segment: int = 0  # in its tree
    position: int = 0  # of the next token to feed
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str = ""


@dataclass(frozen=True)
class Planted:
    """A tree ready to run: its stem, what of it comes after the stem, its rows."""

    stem: Tokens
    tree: Tree
    rows: tuple[Row, ...]

    @property
    def num_tokens(self) -> int:
        return len(self.stem) + self.tree.num_tokens


@dataclass
class Lane:
    """Trees of like length, with a cache of their own: short ones are not padded to the longest of the batch."""

    trees: list[list[Row]]
    adapters: list[str]  # of each tree
    cache: SlotCache
    slots: TreeSlots


class Batch:
    def __init__(self, module: Any, decoder: Any, device: torch.device):
        self._module, self._decoder, self._device = module, decoder, device
        self._lanes: list[Lane] = []
        self._stems: dict[tuple[str, Tokens], tuple[SlotCache, TreeSlots]] = {}
        self._roots: dict[str, tuple[SlotCache, TreeSlots] | None] = {}
        self._decode_step: type[DecodeStep] | None = GraphedStep if device.type == "cuda" else None
        self._fixed: DecodeStep | None = None
        self._shape: tuple[int, ...] = ()  # of the last step, and how many before it had the same
        self._steps_alike = 0
        self._placed: tuple[tuple[tuple[int, ...], int], torch.Tensor] | None = None
        self.hidden_RD: torch.Tensor | None = None  # of the rows' newest tokens: what chooses the next ones

    @property
    def rows(self) -> list[Row]:
        """In the order of `hidden_RD`."""
        return [row for tree in self._trees for row in tree]

    @property
    def num_trees(self) -> int:
        return sum(map(bool, self._trees))

    @property
    def num_widest(self) -> int:
        """Rows of the widest tree."""
        return max(map(len, self._trees), default=0)

    @property
    def num_slots(self) -> int:
        """Of the longest tree."""
        return max((lane.cache.length for lane in self._lanes), default=0)

    @property
    def _trees(self) -> list[list[Row]]:
        return [tree for lane in self._lanes for tree in lane.trees]

    def admit(self, planted: Sequence[Planted]) -> None:
        """Prefill these, and let them run with the rest from the next choice on. What is dead leaves the cache."""
        planted = sorted(planted, key=lambda p: (p.rows[0].adapter, p.stem, -p.tree.num_tokens))
        self._fixed = None  # it holds the buffers that are about to be replaced
        before = self.rows
        hidden = [] if self.hidden_RD is None else [self.hidden_RD]
        for part in _parts(planted, self._device):
            lane, hidden_RD = self._prefilled(part)
            self._lanes.append(lane)
            before += [row for tree in lane.trees for row in tree]
            hidden.append(hidden_RD)
        living = []
        for lane in self._lanes:
            for tree, kept in lane.slots.living([{row.segment for row in rows} for rows in lane.trees]):
                living.append((lane, tree, kept))
        living.sort(key=lambda place: -len(place[2]))
        widest = max(len(lane.trees[tree]) for lane, tree, _ in living)
        first_tokens = _FIRST_TOKENS.get(self._device.type, _FIRST_TOKENS["cpu"])
        room = widest * min(first_tokens, max(row.limit - len(row.ids) for row in before))
        lengths = [len(kept) for _, _, kept in living]
        sizes = part_sizes(lengths, one_more=_LANE_SLOTS) if takes_lanes(self._module) else [len(living)]
        groups, first = [], 0
        for size in sizes:
            groups.append(living[first : first + size])
            first += size
        caches = regrouped([[Place(lane.cache, tree, kept) for lane, tree, kept in group] for group in groups], room=room)
        self._lanes = [
            Lane(
                [lane.trees[tree] for lane, tree, _ in group],
                [lane.adapters[tree] for lane, tree, _ in group],
                cache,
                TreeSlots.regrouped(self._module.config, [(lane.slots, tree, kept) for lane, tree, kept in group]),
            )
            for group, cache in zip(groups, caches, strict=True)
        ]
        place_of = {row.index: i for i, row in enumerate(before)}
        self.hidden_RD = torch.cat(hidden)[torch.tensor([place_of[row.index] for row in self.rows], device=self._device)]

    def drop_finished(self) -> None:
        """Rows with a finish reason leave; their trees' places in the cache go when enough of them are empty."""
        for lane in self._lanes:
            lane.trees = [[row for row in tree if not row.finish_reason] for tree in lane.trees]
            alive = [b for b, tree in enumerate(lane.trees) if tree]
            if alive and len(alive) <= 0.7 * len(lane.trees):
                self._fixed = None
                keep = torch.tensor(alive, device=self._device)
                lane.cache.keep(keep)
                lane.slots.keep(keep)
                lane.trees = [lane.trees[b] for b in alive]
                lane.adapters = [lane.adapters[b] for b in alive]
        self._lanes = [lane for lane in self._lanes if any(lane.trees)]
        if not self._lanes:
            self.hidden_RD = None

    def step(self) -> None:
        """Feed the newest token of every row; trees with fewer rows are padded."""
        trees = self._trees
        widest = max(map(len, trees))
        padding = [0, 0, PADDING]
        fed_BQ3 = [[[r.ids[-1], r.position, r.segment] for r in tree] + [padding] * (widest - len(tree)) for tree in trees]
        fed_3BQ = on_device(torch.tensor(fed_BQ3).permute(2, 0, 1).contiguous(), self._device)
        for row in self.rows:
            row.position += 1
        hidden_BQD = self._recorded(fed_3BQ)
        if hidden_BQD is None:
            hidden_BQD = self._forward(fed_3BQ, self._lanes)
        if widest == 1 and all(trees):
            self.hidden_RD = hidden_BQD[:, 0]
        else:
            self.hidden_RD = hidden_BQD.flatten(0, 1).index_select(0, self._places(tuple(map(len, trees)), widest))

    def _places(self, sizes: tuple[int, ...], widest: int) -> torch.Tensor:
        """Of the rows among trees x `widest`, kept while they are the same: a GPU is not asked which are padding."""
        if self._placed is None or self._placed[0] != (sizes, widest):
            places_R = torch.tensor([b * widest + q for b, size in enumerate(sizes) for q in range(size)])
            self._placed = (sizes, widest), on_device(places_R, self._device)
        return self._placed[1]

    def _recorded(self, fed_3BQ: torch.Tensor) -> torch.Tensor | None:
        """The step as it was recorded; None where it is not worth it (yet): shapes that change, an adapter for each row."""
        (lane, *others) = self._lanes
        if self._decode_step is None or others or any(lane.adapters):
            return None
        shape = tuple(fed_3BQ.shape)
        self._steps_alike = self._steps_alike + 1 if shape == self._shape else 0
        self._shape = shape
        if self._fixed is None or not self._fixed.fits(lane.cache, fed_3BQ):
            self._fixed = None
            if self._steps_alike < _STEPS_BEFORE_RECORDING or lane.cache.length + fed_3BQ.shape[2] > lane.cache.num_slots:
                return None
            self._fixed = self._decode_step(self._module, self._decoder, lane.cache, fed_3BQ)
        lane.slots.add(fed_3BQ[2], fed_3BQ[1])
        return self._fixed(fed_3BQ, lane.slots.mask(fed_3BQ.shape[2], self._module.dtype))

    def _prefilled(self, planted: Sequence[Planted]) -> tuple[Lane, torch.Tensor]:
        """Trees of one stem: the stem's keys and values from store, then prefixes and suffixes. Hidden states at the prompts' ends."""
        stem, adapter = planted[0].stem, planted[0].rows[0].adapter
        before = self._stem(stem, adapter) if stem else self._root(adapter)
        num_before = before[0].length if before else 0
        fed_3BQ = padding(len(planted), max(p.tree.num_tokens for p in planted))
        ends: list[tuple[int, int]] = []
        for b, p in enumerate(planted):
            ids, positions, segments = laid_out(p.tree, first=num_before)
            fed_3BQ[:, b, : len(ids)] = torch.tensor([ids, positions, segments])
            at = len(p.tree.prefix)
            for k, (row, suffix) in enumerate(zip(p.rows, p.tree.suffixes, strict=True), start=1):
                at += len(suffix)
                ends.append((b, at - 1))
                row.segment, row.position = k, num_before - len(stem) + len(row.prompt)
        num_slots = num_before + fed_3BQ.shape[2]
        if before:
            cache, slots = before[0].repeated(len(planted), num_slots=num_slots), before[1].repeated(len(planted))
        else:
            cache, slots = SlotCache(num_slots=num_slots), TreeSlots(self._module.config)
        lane = Lane([list(p.rows) for p in planted], [adapter] * len(planted), cache, slots)
        hidden_BQD = self._forward(fed_3BQ, [lane])
        trees_R, queries_R = (torch.tensor(x, device=self._device) for x in zip(*ends, strict=True))
        return lane, hidden_BQD[trees_R, queries_R]

    def _stem(self, stem: Tokens, adapter: str) -> tuple[SlotCache, TreeSlots]:
        kept = self._stems.pop((adapter, stem), None)
        if kept is None:
            root = self._root(adapter)
            first = root[0].length if root else 0
            fed_3BQ = torch.tensor([list(stem), list(range(first, first + len(stem))), [0] * len(stem)])[:, None]
            if root:
                kept = root[0].repeated(1, num_slots=first + len(stem)), root[1].repeated(1)
            else:
                kept = SlotCache(num_slots=len(stem)), TreeSlots(self._module.config)
            self._forward(fed_3BQ, [Lane([[]], [adapter], *kept)])
        self._stems[adapter, stem] = kept  # the newest last
        while len(self._stems) > _STEMS_KEPT:
            self._stems.pop(next(iter(self._stems)))
        return kept

    def _root(self, adapter: str) -> tuple[SlotCache, TreeSlots] | None:
        """What every sequence of this adapter begins with; None for nothing."""
        if adapter not in self._roots:
            self._roots[adapter] = root(self._module, adapter)
        return self._roots[adapter]

    def _forward(self, fed_3BQ: torch.Tensor, lanes: Sequence[Lane]) -> torch.Tensor:
        adapters = [adapter for lane in lanes for adapter in lane.adapters]
        caches, slots = [lane.cache for lane in lanes], [lane.slots for lane in lanes]
        return forward(self._module, self._decoder, fed_3BQ.to(self._device), caches, slots, adapters)


def root(module: Any, adapter: str = "") -> tuple[SlotCache, TreeSlots] | None:
    """One tree that holds the virtual tokens of the adapter, at the first positions; None without any."""
    found = prefix(module, adapter)
    if found is None:
        return None
    cache, slots = SlotCache.beginning_with(found), TreeSlots(module.config)
    positions_1N = torch.arange(cache.length, device=found[0][0].device)[None]
    slots.add(torch.zeros_like(positions_1N), positions_1N)
    return cache, slots


def forward(
    module: Any,
    decoder: Any,
    fed_3BQ: torch.Tensor,
    caches: Sequence[SlotCache],
    slots: Sequence[TreeSlots],
    adapters: Sequence[str] = (),
) -> torch.Tensor:
    """Hidden states (B, Q, D) of new tokens; their keys and values go into `caches`, which hold the trees in order.

    `fed_3BQ`: ids, positions, segments. Several caches only where `takes_lanes(module)`.
    """
    ids_BQ, positions_BQ, segments_BQ = fed_3BQ
    sizes = [len(ids_BQ)]
    cache: SlotCache | LaneCache = caches[0]
    if len(caches) > 1:
        sizes = [one.num_trees for one in caches]
        cache = LaneCache(caches, sizes)
    masks = []
    for own, segments, positions in zip(slots, segments_BQ.split(sizes), positions_BQ.split(sizes), strict=True):
        own.add(segments, positions)
        masks.append(own.mask(ids_BQ.shape[1], module.dtype))
    mask = joined_masks(masks)
    given = {"input_ids": ids_BQ, "position_ids": positions_BQ, "attention_mask": mask, "use_cache": True, cache_argument(decoder): cache}
    with grouped_attention(module), adapter_rows(module, adapters) if any(adapters) else nullcontext():
        hidden_BQD = decoded(decoder, given, [one.open(ids_BQ.shape[1]) for one in caches])
        if hidden_BQD is None:
            hidden_BQD = decoder(**given).last_hidden_state
    cache.advance(ids_BQ.shape[1])
    return hidden_BQD


def laid_out(tree: Tree, *, first: int = 0) -> tuple[list[int], list[int], list[int]]:
    """Ids, positions (from `first`) and segments of a tree: prefix, then every suffix."""
    shared = len(tree.prefix)
    ids, positions, segments = list(tree.prefix), list(range(first, first + shared)), [0] * shared
    for k, suffix in enumerate(tree.suffixes, start=1):
        ids += suffix
        positions += range(first + shared, first + shared + len(suffix))
        segments += [k] * len(suffix)
    return ids, positions, segments


def padding(num_trees: int, num_queries: int) -> torch.Tensor:
    """(3, B, Q): ids, positions, segments."""
    fed_3BQ = torch.zeros(3, num_trees, num_queries, dtype=torch.long)
    fed_3BQ[2] = PADDING
    return fed_3BQ


def _parts(planted: Sequence[Planted], device: torch.device) -> Iterator[list[Planted]]:
    """Trees of one stem and adapter, of like length, whose padded tokens fit one forward pass, in order."""
    most = _PREFILL_TOKENS.get(device.type, _PREFILL_TOKENS["cpu"])
    for _, alike in groupby(planted, key=lambda p: (p.stem, p.rows[0].adapter)):
        trees = list(alike)
        for size in part_sizes([p.tree.num_tokens for p in trees], one_more=pass_tokens(device), most=most):
            yield trees[:size]
            del trees[:size]
