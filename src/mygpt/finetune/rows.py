"""How a decoder's examples become rows: several in one (packed) or one each, of which lengths, compiled or computed again.

What a model takes is found by comparing numbers before the first step; a setting that it cannot follow is said aloud, not an error.

Source  ours; the layouts: `training/packing`, `training/batches`, `training/compile_layers`, `training/recompute`
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from pydantic import NonNegativeInt, PositiveInt

from mygpt.artifacts.model import Model
from mygpt.core.run import Run
from mygpt.lm.adapters import methods
from mygpt.lm.chat import Rendered
from mygpt.lm.load import blueprint, preferred_device
from mygpt.training.activations import ForwardPass, decoder_pass, packed_rows_of, rows_of
from mygpt.training.batches import Batch, Plan, batch_of, plan_epoch, shape_ladder, worth_compiling
from mygpt.training.compile_layers import NUM_SHAPES, compile_layers
from mygpt.training.fit import Work, require_memory
from mygpt.training.forecast import Forecast
from mygpt.training.losses import chunk_labels_for
from mygpt.training.packing import keeps_apart, packed_batch, plan_packed_epoch
from mygpt.training.recompute import recompute_layers
from mygpt.training.steps import Advice, Examples
from mygpt.training.tuning import TuningConfig, advice_for, dtype_of

_ROWS_WORTH_COMPILING = 64  # a length's compilation takes as long as 30 rows of it, and saves them half of the time at most


class RowsConfig(TuningConfig):
    step_tokens: PositiveInt = 1024  # padded tokens per update
    pack_tokens: NonNegativeInt = 2048  # of a row that several examples share, a forward pass each; 0: one example a row
    micro_batch_tokens: PositiveInt = 2048  # padded tokens per forward pass where a row is one example
    ce_chunk_tokens: PositiveInt | None = None  # trained tokens whose logits stand in memory together; None: what 400 MB hold
    compile_layers: bool = False  # a minute or more before the first steps, then a third faster: for long runs


def plan_of(config: RowsConfig, num_tokens: Sequence[int], order: Callable[[str], Random], *, packed: bool) -> Plan:
    """All epochs; `order` gives a source of chance by name."""
    plan: Plan = []
    for epoch in range(config.epochs):
        own = order(f"order/{epoch}")
        if packed:
            plan += plan_packed_epoch(num_tokens, step_tokens=config.step_tokens, pack_tokens=config.pack_tokens, order=own)
        else:
            plan += plan_epoch(num_tokens, step_tokens=config.step_tokens, micro_batch_tokens=config.micro_batch_tokens, order=own)
    return plan


def row_size(config: RowsConfig) -> tuple[str, int]:
    """The setting that bounds a forward pass, and what it comes to."""
    size = "pack_tokens" if config.pack_tokens else "micro_batch_tokens"
    return size, min(getattr(config, size), config.step_tokens)


def advice(config: RowsConfig, *, named_in_up: str) -> Advice:
    """What to change when training diverges, or runs out of memory all the same."""
    size, most = row_size(config)
    return advice_for(config, smaller=[f"`{size}` to {max(1, most // 2)}"], named_in_up=named_in_up)


def context_tokens_of(model: Model, config: RowsConfig) -> int | None:
    """How many tokens an example may have beside the method's virtual ones; None where the architecture names no bound."""
    window = getattr(blueprint(model, dtype_of(config)).config.get_text_config(), "max_position_embeddings", None)
    return window and window - methods.num_virtual_tokens(config.method)


def forecast_of(
    config: RowsConfig, model: Model, tokenizer: Any, known: Examples, order: Callable[[str], Random], *, home: Path
) -> Forecast:
    """What training will need. Raises Refused when this machine does not have it."""

    def work_of(config: RowsConfig) -> Work:
        packed = config.pack_tokens > 0
        with torch.device("meta"):
            module = methods.attach(blueprint(model, dtype_of(config)), config.method, tokenizer=tokenizer)
        shape_of = packed_rows_of(known.num_tokens) if packed else rows_of(known.num_tokens)
        chunk_labels = config.ce_chunk_tokens or chunk_labels_for(module, device=preferred_device())
        return Work(
            recompute_layers(module) if config.recompute else module,
            plan_of(config, known.num_tokens, order, packed=packed),
            known,
            ForwardPass(decoder_pass, shape_of, most_labels=chunk_labels),
        )

    return require_memory(config, work_of, size=row_size(config), home=home)


class Layout(NamedTuple):
    """How a micro-batch becomes tensors."""

    form: Callable[..., Batch]  # packed_batch or batch_of
    shapes: list[int]  # lengths that rows are padded to; none: as long as they are
    chunk_labels: int

    @property
    def is_packed(self) -> bool:
        return self.form is packed_batch


def layout_of(module: Any, config: RowsConfig, examples: Sequence[Rendered], *, row_tokens: Sequence[int], run: Run) -> Layout:
    """What `module` takes, found by comparing numbers on some short `examples`; its layers are prepared as the settings ask.

    `row_tokens`: of every row of the plan.
    """
    if config.recompute:
        recompute_layers(module)
    packed = config.pack_tokens > 0 and keeps_apart(module, examples, run=run)
    compiled = config.compile_layers and packed
    if compiled:
        run.note("Layers are compiled at the first rows of each length: the first steps take longer, a minute or more.")
        compile_layers(module)
    elif config.compile_layers:
        run.warn("Layers are not compiled: rows of one example each come in too many shapes.")
    on_gpu = next(module.parameters()).device.type == "cuda"
    few = shape_ladder(min(config.pack_tokens, config.step_tokens))[-NUM_SHAPES:] if packed else []
    shapes = few if compiled or on_gpu else []  # what is compiled is compiled for each length
    if compiled:
        shapes = worth_compiling(row_tokens, shapes, least_rows=_ROWS_WORTH_COMPILING)
    return Layout(packed_batch if packed else batch_of, shapes, config.ce_chunk_tokens or chunk_labels_for(module))
