"""Whether a decoder's training fits this machine, before its weights are loaded; and what to change where it does not.

Source  ours; the arithmetic: `training/forecast`
"""

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import torch

from mygpt.artifacts.model import Model
from mygpt.finetune.rows import RowsConfig, plan_of
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.load import blueprint, preferred_device
from mygpt.lm.memory import give_back_freed_memory
from mygpt.training.batches import Plan
from mygpt.training.forecast import Forecast, forecast_training, require_fit
from mygpt.training.machine import memory_limit_bytes, resident_bytes
from mygpt.training.recompute import recompute_layers
from mygpt.training.steps import Advice, Examples
from mygpt.training.tuning import advice_for, dtype_of


def require_memory(config: RowsConfig, model: Model, tokenizer: Any, examples: Examples, plan: Plan, *, home: Path) -> Forecast:
    """What training will need. Raises Refused when this machine does not have it, with what to change."""
    device = preferred_device()
    give_back_freed_memory()  # of earlier work of this process: it does not count
    limit_bytes, process_bytes = memory_limit_bytes(device), resident_bytes(device)

    def with_settings(changed: RowsConfig) -> Forecast:
        with torch.device("meta"):
            module = methods.attach(blueprint(model, dtype_of(config)), changed.method, tokenizer=tokenizer)
        return forecast_training(
            recompute_layers(module) if changed.recompute else module,
            four_bits=methods.base_weights(changed.method) == "nf4",
            packed=changed.pack_tokens > 0,
            plan=plan if changed is config else plan_of(changed, examples.num_tokens, Random, packed=changed.pack_tokens > 0),
            num_tokens=examples.num_tokens,
            num_trained=examples.num_trained,
            device=device,
            home=home,
            process_bytes=process_bytes,
        )

    forecast = with_settings(config)
    if forecast.bytes > limit_bytes:
        size, most = _row_size(config)
        smaller: list[dict[str, Any]] = [{size: most >> n} for n in range(1, 12) if most >> n >= 64]
        tried = [*([{"method": LoRA()}] if isinstance(config.method, Full) else []), *smaller]
        tried += [*([] if config.recompute else [{"recompute": True}])]
        changes = ((_said(change), with_settings(config.model_copy(update=change))) for change in tried)
        require_fit(forecast, limit_bytes=limit_bytes, changes=changes)
    return forecast


def advice(config: RowsConfig, *, named_in_up: str) -> Advice:
    """What to change when training diverges, or runs out of memory all the same."""
    size, most = _row_size(config)
    smaller = [f"`{size}` to {max(1, most // 2)}", *([] if config.recompute else ["`recompute` to true"])]
    return advice_for(config, smaller=smaller, named_in_up=named_in_up)


def _row_size(config: RowsConfig) -> tuple[str, int]:
    """The setting that bounds a forward pass, and what it comes to."""
    size = "pack_tokens" if config.pack_tokens else "micro_batch_tokens"
    return size, min(getattr(config, size), config.step_tokens)


def _said(change: Mapping[str, Any]) -> str:
    """As it is written on the command line."""
    values = {key: value.name if isinstance(value, LoRA) else str(value).lower() for key, value in change.items()}
    return " ".join(f"`--set {key}={value}`" for key, value in values.items())
