"""Training steps over the same examples in several layouts: packed rows, rows of one example each, a block-diagonal mask over a whole row.

    python -m benchmarks.layouts --json --keep

LoRA r=16 on all linear layers, forward and backward pass of SmolLM2-135M, random tokens, the second half of each example trained. Layouts
alternate in one process; seconds are its own CPU time on one thread, so that a busy machine does not decide, and the best
of the rounds counts. `ratio`: real tokens a second, packed over rows. Equal work: all layouts must sum to the same loss.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from benchmarks.record import arguments, finish
from mygpt.core.home import find_home
from mygpt.core.run import Run
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.methods import attach
from mygpt.lm.chat import Rendered
from mygpt.lm.load import load_lm
from mygpt.lm.sources import obtain
from mygpt.training import losses
from mygpt.training.batches import Batch, Plan, batch_of, padding_share, plan_epoch, size_in_rows, size_packed
from mygpt.training.losses import chunk_labels_for, summed_cross_entropy
from mygpt.training.packing import packed_batch, plan_packed_epoch

_LENGTHS = {"short": (60, 130), "mixed": (40, 500), "long": (600, 1000)}
_ROW_TOKENS, _TOKENS = 1024, 2048
CPU = torch.device("cpu")


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", default="smollm2-135m-q4_1")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load_lm(obtain(options.model, run=Run(find_home(None), name="benchmark")))
    module = attach(loaded.module, LoRA(), tokenizer=loaded.tokenizer)
    figures: dict[str, Any] = {name: layouts(module, *bounds, rounds=options.rounds) for name, bounds in _LENGTHS.items()}
    figures["ratio"] = figures["mixed"]["ratio"]
    finish("layouts", {"dtype": str(module.dtype), "threads": 1, "row_tokens": _ROW_TOKENS, **figures}, options)


def layouts(module: Any, shortest: int, longest: int, *, rounds: int) -> dict[str, Any]:
    order = random.Random(0)
    examples: list[Rendered] = []
    while sum(len(e.token_ids) for e in examples) < _TOKENS:
        length = order.randint(shortest, longest)
        ids = tuple(order.randrange(3, 40_000) for _ in range(length))
        examples.append(Rendered(ids, tuple(i >= length // 2 for i in range(length)), ()))
    lengths = [len(e.token_ids) for e in examples]
    rows = plan_epoch(lengths, step_tokens=_ROW_TOKENS, micro_batch_tokens=_ROW_TOKENS, order=random.Random(0))
    packs = plan_packed_epoch(lengths, step_tokens=_ROW_TOKENS, pack_tokens=_ROW_TOKENS, order=random.Random(0))

    ways: dict[str, tuple[Plan, Callable[..., Batch], bool]] = {
        "rows": (rows, batch_of, False),
        "packed": (packs, packed_batch, False),
        "mask": (packs, packed_batch, True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    nats: dict[str, float] = {}
    for number in range(rounds):
        for name, (plan, form, whole_row) in ways.items():
            if whole_row and number:  # slow, and beside the point once it is known
                continue
            batches = [form([examples[i] for i in micro], padding_id=0, device=CPU) for step in plan for micro in step]
            started = time.process_time()
            nats[name] = sum(backward(module, batch, whole_row=whole_row) for batch in batches)
            seconds[name].append(time.process_time() - started)
    assert max(nats.values()) < 1.01 * min(nats.values()), nats
    rates = {name: sum(lengths) / min(times) for name, times in seconds.items()}
    return {
        "examples": len(examples),
        "tokens": sum(lengths),
        "tokens_per_cpu_second": {name: round(rate, 1) for name, rate in rates.items()},
        "all_cpu_seconds": {name: [round(t, 2) for t in times] for name, times in seconds.items()},
        "padding_of_rows": round(padding_share(rows, lengths, size=size_in_rows), 3),
        "padding_of_packs": round(padding_share(packs, lengths, size=size_packed), 3),
        "ratio": round(rates["packed"] / rates["rows"], 2),
    }


def backward(module: Any, batch: Batch, *, whole_row: bool) -> float:
    """`whole_row`: transformers' own attention, under the mask that it makes from the positions."""
    asked = {"positions_BT": batch.positions_BT, "chunk_labels": chunk_labels_for(module)}
    with only_sdpa() if whole_row else nullcontext():
        nats = summed_cross_entropy(module, batch.ids_BT, batch.trained_BT, **asked)
        nats.backward()
    return float(nats.detach())


@contextmanager
def only_sdpa() -> Iterator[None]:
    own = losses.packed_attention
    losses.packed_attention = lambda module, positions_BT: nullcontext({})
    try:
        yield
    finally:
        losses.packed_attention = own


if __name__ == "__main__":
    main()
