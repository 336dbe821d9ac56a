"""Several adapters on one base model in one batch: each row of a forward pass through its own.

LoRA and bottleneck adapters are computed row by row. Virtual tokens need nothing here: they are what the row's cache begins with
(`lm/virtual_tokens`). DoRA and IA3 are one for all rows, and `lm/adapters/methods` does not load several.

Source    mixed batches as in S-LoRA (Sheng et al. 2023, arXiv:2311.03285), through peft's own `adapter_names`
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

BASE = "__base__"  # peft's word for a row without an adapter


@contextmanager
def adapter_rows(module: Any, names: Sequence[str]) -> Iterator[None]:
    """Within the block, row i of every forward pass of `module` goes through the adapter `names[i]`, or BASE.

    `module`: as `lm/adapters/methods.load` gives it.
    """
    from mygpt.lm.adapters.bottleneck import adapters_of

    if (carried := adapters_of(module)) is not None:
        carried.rows = names
        try:
            yield
        finally:
            carried.rows = ()
    elif any(one.is_prompt_learning for one in module.peft_config.values()):
        required = module.get_decoder().register_forward_pre_hook(_require_cache, prepend=True, with_kwargs=True)
        try:
            yield
        finally:
            required.remove()
    else:
        with module.base_model._enable_peft_forward_hooks(adapter_names=list(names)):
            yield


def _require_cache(_: Any, __: tuple[Any, ...], given: dict[str, Any]) -> None:
    has_cache = any(given.get(name) is not None for name in ("cache", "past_key_values"))
    assert has_cache, "without caches all rows would get one adapter's tokens"
