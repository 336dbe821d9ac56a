"""What autograd keeps of a real forward pass, weighed tensor by tensor."""

from collections.abc import Callable
from typing import Any

import torch


def kept_bytes(module: Any, run: Callable[[], object]) -> int:
    """Of all tensors that are saved for the backward pass while `run()` runs, but for weights."""
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in kept.values())
