"""Several examples in one row, none of which sees another: no token of the row is padding.

    positions begin anew at each example    transformers' sign of a packed row: it builds a block-diagonal mask from them
    CPU                                     `lm/attention` computes each block by itself, so that nothing is spent between the blocks
    GPU                                     `lm/varlen` likewise; where that is not possible, FlexAttention skips hidden blocks

An architecture that does not take such rows (a recurrent state, positions that it counts for itself) is found by `isolation_fault`, which
compares numbers before training; it is trained on rows of one example each (`batches`).

Source     best-fit packing without cutting an example: Ding et al. 2024, arXiv:2404.10830; isolation: Krell et al. 2021, arXiv:2107.02027
We differ  lengths are jittered by a tenth before they are sorted, so that the company of an example changes between epochs
Dims       T tokens of the row
"""

import random
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any

import torch

from mygpt.core.run import Run
from mygpt.lm.chat import Rendered
from mygpt.lm.memory import on_device
from mygpt.lm.varlen import PackedRow
from mygpt.training.batches import Batch, Plan, fitted, places_before_labels
from mygpt.training.losses import hidden_states

_APART = {torch.float32: 1e-4, torch.float64: 1e-6}  # of a hidden state, relative: what rounding may do
_APART_IN_HALF = 0.2  # SmolLM2-135M in bfloat16: 0.04 by rounding, 0.76 where an example sees the one before
_COMPARED_TOKENS = 64
_PADDING_TOKENS = 128  # of a block: attention over 10,000 tokens of padding costs more than over the examples


def plan_packed_epoch(lengths: Sequence[int], *, step_tokens: int, pack_tokens: int, order: random.Random) -> Plan:
    """Every example once, in rows of at most `pack_tokens` (and `step_tokens`); each row is a micro-batch. Rows come in random order."""
    jittered = sorted(range(len(lengths)), key=lambda i: -lengths[i] * order.uniform(0.9, 1.1))
    rows = best_fit(jittered, lengths, min(pack_tokens, step_tokens))
    order.shuffle(rows)
    steps: Plan = []
    room = 0
    for row in rows:
        tokens = sum(lengths[i] for i in row)
        if not steps or tokens > room:
            steps.append([])
            room = step_tokens
        steps[-1].append(row)
        room -= tokens
    return steps


def best_fit(examples: Sequence[int], lengths: Sequence[int], capacity_tokens: int) -> list[list[int]]:
    """Each example, in this order, goes where the least room is left over; a longer one than the capacity is alone.

    Longest first, at most 11/9 of the fewest rows are used (Johnson 1973).
    """
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (tokens that still fit, row), sorted
    for i in examples:
        at = bisect_left(rooms, (lengths[i], 0))
        if at == len(rooms):
            rows.append([i])
            room, row = capacity_tokens - lengths[i], len(rows) - 1
        else:
            room, row = rooms.pop(at)
            rows[row].append(i)
            room -= lengths[i]
        if room > 0:
            insort(rooms, (room, row))
    return rows


def packed_batch(examples: Sequence[Rendered], *, padding_id: int, device: torch.device, shapes: Sequence[int] = ()) -> Batch:
    """One row. With `shapes` it is padded to the next of them; the padding is in short blocks of its own, of no label."""
    ids = [token for e in examples for token in e.token_ids]
    trained = [i > 0 and t for e in examples for i, t in enumerate(e.trained)]  # what precedes a first token is another's
    positions = [i for e in examples for i in range(len(e.token_ids))]
    padding = fitted(len(ids), shapes) - len(ids)
    ids_BT = torch.tensor([ids + [padding_id] * padding])
    trained_BT = torch.tensor([trained + [False] * padding])
    positions_BT = torch.tensor([positions + [i % _PADDING_TOKENS for i in range(padding)]])
    row, places_N = PackedRow.of(positions_BT, device), places_before_labels(trained_BT)
    ids_BT, trained_BT, positions_BT, places_N = (on_device(one, device) for one in (ids_BT, trained_BT, positions_BT, places_N))
    return Batch(ids_BT, trained_BT, len(ids), positions_BT, row, places_N)


def keeps_apart(module: Any, examples: Sequence[Rendered], *, run: Run) -> bool:
    """Whether rows may hold several examples: compared on the two shortest. Where not, says why."""
    first, *others = (e.token_ids[:_COMPARED_TOKENS] for e in sorted(examples, key=lambda e: len(e.token_ids)))
    fault = isolation_fault(module, first, others[0] if others else first)
    if fault is not None:
        name = type(module.get_base_model() if hasattr(module, "get_base_model") else module).__name__
        run.warn(f"Examples of {name} are not packed, each is a row of its own: {fault}.")
    return fault is None


def isolation_fault(module: Any, first: Sequence[int], second: Sequence[int]) -> str | None:
    """Why packed rows would be wrong for `module`, or None: its hidden states of two examples in one row, against each by itself.

    In a second row other tokens stand in the first example's place, and the second example must not notice. The forward pass is that of
    training, so whatever runs in it (a device's kernel, an adapter) is what is judged.
    """
    device = next(module.parameters()).device
    vocabulary = module.get_input_embeddings().num_embeddings
    rows = torch.tensor([[*first, *second], [*((token + 1) % vocabulary for token in first), *second]], device=device)
    positions_1T = torch.tensor([[*range(len(first)), *range(len(second))]], device=device)
    with torch.enable_grad():  # with a backward pass ahead, other kernels are chosen
        try:
            packed_TD, other_TD = (hidden_states(module, row_T[None], positions_1T)[0].detach() for row_T in rows)
        except torch.OutOfMemoryError:
            raise
        except (TypeError, NotImplementedError, RuntimeError) as error:  # no positions among its arguments, no kernel on this device
            return f"its forward pass does not take such a row: {str(error).partition(chr(10))[0]}"
        each = rows[:1].split([len(first), len(second)], dim=1)
        alone_TD = torch.cat([hidden_states(module, ids_1T)[0].detach() for ids_1T in each])
    allowed = _APART.get(alone_TD.dtype, _APART_IN_HALF)
    if (leak := _apart(other_TD[len(first) :], packed_TD[len(first) :])) > allowed:
        return f"an example notices what stands before it in the row: its hidden states change by {leak:.1%}"
    if (apart := _apart(packed_TD, alone_TD)) > allowed:
        return f"an example is read differently behind another: its hidden states change by {apart:.1%}"
    return None


def _apart(one_TD: torch.Tensor, other_TD: torch.Tensor) -> float:
    """The largest relative distance of a token's two hidden states."""
    one_TD, other_TD = one_TD.float(), other_TD.float()
    return float(((one_TD - other_TD).norm(dim=-1) / other_TD.norm(dim=-1).clamp_min(1e-12)).max())
