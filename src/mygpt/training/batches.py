"""Which examples go together: batches of like length under a token budget, so that little is padding and nothing leaks.

Rows of a batch are separate sequences, padded on the right: under a causal mask no example sees another, on any backend. Several examples
in one row are the matter of `packing`.

Dims  B examples   T tokens, padded
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F

from mygpt.lm.chat import Rendered
from mygpt.lm.memory import on_device
from mygpt.lm.varlen import PackedRow

_SMALLEST_SHAPE = 128
Plan = list[list[list[int]]]  # step -> micro-batch -> example


@dataclass(frozen=True)
class Batch:
    ids_BT: torch.Tensor  # int64
    trained_BT: torch.Tensor  # bool: this token is a label
    num_tokens: int  # real ones, without padding
    positions_BT: torch.Tensor | None = None  # of a packed row: they begin anew at each example
    packed_row: PackedRow | None = None  # the same for `lm/varlen`
    before_labels_N: torch.Tensor | None = None  # `places_before_labels`: known here, so that nobody waits for a GPU to tell it


def plan_epoch(lengths: Sequence[int], *, step_tokens: int, micro_batch_tokens: int, order: random.Random) -> Plan:
    """Every example once. Neighbours in length share a step; steps come in random order.

    A little noise on the length lets neighbours change between epochs.
    """
    by_length = sorted(range(len(lengths)), key=lambda i: lengths[i] * order.uniform(0.9, 1.1))
    steps = [cut_by_tokens(step, lengths, micro_batch_tokens) for step in cut_by_tokens(by_length, lengths, step_tokens)]
    order.shuffle(steps)
    return steps


def cut_by_tokens(examples: Sequence[int], lengths: Sequence[int], budget_tokens: int) -> list[list[int]]:
    """Consecutive groups whose padded size (rows x longest) is at most `budget_tokens`; a longer example is alone."""
    groups: list[list[int]] = []
    longest = 0
    for i in examples:
        longest = max(longest, lengths[i])
        if groups and longest * (len(groups[-1]) + 1) <= budget_tokens:
            groups[-1].append(i)
        else:
            groups.append([i])
            longest = lengths[i]
    return groups


def batch_of(examples: Sequence[Rendered], *, padding_id: int, device: torch.device, shapes: Sequence[int] = ()) -> Batch:
    """One example a row. With `shapes`, rows are padded to the next of these lengths."""
    longest = fitted(max(len(e.token_ids) for e in examples), shapes)
    ids_BT = torch.full((len(examples), longest), padding_id)
    trained_BT = torch.zeros((len(examples), longest), dtype=torch.bool)
    for b, example in enumerate(examples):
        ids_BT[b, : len(example.token_ids)] = torch.tensor(example.token_ids)
        trained_BT[b, : len(example.token_ids)] = torch.tensor(example.trained)
    ids, trained, before_labels_N = (on_device(one, device) for one in (ids_BT, trained_BT, places_before_labels(trained_BT)))
    return Batch(ids, trained, sum(len(e.token_ids) for e in examples), before_labels_N=before_labels_N)


def places_before_labels(trained_BT: torch.Tensor) -> torch.Tensor:
    """(N,) of the B x T tokens in one line: those that a label comes after."""
    return F.pad(trained_BT[:, 1:], (0, 1)).flatten().nonzero()[:, 0]


B = TypeVar("B")


class Ahead(Generic[B]):
    """Batches in the order of a plan. The next one is made while a GPU computes the last: reading and packing 16,384 tokens takes 10 ms."""

    def __init__(self, make: Callable[[Sequence[int]], B], micro_batches: Iterable[Sequence[int]]):
        self._make, self._to_come = make, iter(micro_batches)
        self._ready: tuple[Sequence[int], B] | None = None

    def take(self, rows: Sequence[int]) -> B:
        if self._ready is None:
            self.prepare()
        assert self._ready is not None and list(self._ready[0]) == list(rows), "another micro-batch than the plan's"
        (_, batch), self._ready = self._ready, None
        return batch

    def prepare(self) -> None:
        """To be called when the work on the last is on its way."""
        for rows in self._to_come:
            self._ready = (rows, self._make(rows))
            return


# -- shapes: what is compiled for a length is compiled once for each ---------------------------------------------------------


def shape_ladder(longest_tokens: int) -> list[int]:
    """Few lengths up to `longest_tokens`, each about 1.4 times the one before and (but the last) a multiple of 64."""
    ladder = [longest_tokens]
    while (shorter := round(ladder[-1] / 2**0.5 / 64) * 64) >= _SMALLEST_SHAPE:
        ladder.append(shorter)
    return ladder[::-1]


def fitted(tokens: int, shapes: Sequence[int]) -> int:
    """The least of `shapes` that holds so many tokens; the number itself where none does."""
    return min((shape for shape in shapes if shape >= tokens), default=tokens)


def worth_compiling(row_tokens: Sequence[int], shapes: Sequence[int], *, least_rows: int) -> list[int]:
    """Those of `shapes` (rising) that so many rows come in, and the longest that is needed. Other rows are padded to the next of them."""
    counts = Counter(fitted(tokens, shapes) for tokens in row_tokens)
    kept: list[int] = []
    waiting = 0
    for shape in shapes:
        waiting += counts[shape]
        if waiting >= least_rows:
            kept, waiting = [*kept, shape], 0
    return [*kept, max(shape for shape in shapes if counts[shape])] if waiting else kept


def size_in_rows(micro: Sequence[int], lengths: Sequence[int], shapes: Sequence[int] = ()) -> int:
    """Tokens that are computed for these examples in rows of one each."""
    return len(micro) * fitted(max(lengths[i] for i in micro), shapes)


def size_packed(micro: Sequence[int], lengths: Sequence[int], shapes: Sequence[int] = ()) -> int:
    """Tokens that are computed for these examples in one packed row."""
    return fitted(sum(lengths[i] for i in micro), shapes)


def padding_share(
    plan: Plan, lengths: Sequence[int], *, size: Callable[[Sequence[int], Sequence[int], Sequence[int]], int], shapes: Sequence[int] = ()
) -> float:
    """Of the tokens that are computed: 0 is none. `size`: `size_in_rows` or `size_packed`."""
    computed = sum(size(micro, lengths, shapes) for step in plan for micro in step)
    return 1 - sum(lengths[i] for step in plan for micro in step for i in micro) / computed if computed else 0.0
