"""Several adapters on one base model in one batch: each row of a forward pass through its own.

Source    mixed batches as in S-LoRA (Sheng et al. 2023, arXiv:2311.03285), through peft's own `adapter_names`
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

BASE = "__base__"  # peft's word for a row without an adapter


@contextmanager
def adapter_rows(module: Any, names: Sequence[str]) -> Iterator[None]:
    """Within the block, row i of every forward pass of `module` (a PeftModel) goes through the adapter `names[i]`, or BASE."""
    with module.base_model._enable_peft_forward_hooks(adapter_names=list(names)):
        yield
