"""torch.compile for each layer by itself: its products and norms are fused, its attention stays what `lm/attention` chooses.

A layer is compiled once for each length of row that it meets, so rows must come in few lengths (`shape_ladder`): packed rows do.

Source     PyTorch 2: Ansel et al. 2024, ASPLOS; compilation by region, as torchtitan and torchtune do it
We differ  lengths are fixed, never dynamic: a shape is compiled at its first row, and nothing is compiled again
"""

from collections.abc import Callable
from typing import Any

from mygpt.core.errors import Refused
from mygpt.core.outbound import silence_hub
from mygpt.lm.fused_layer import unfuse

NUM_SHAPES = 4  # torch keeps at most 256 compilations of a layer's code: 60 layers of 4 lengths


def compile_layers(module: Any, *, backend: str | Callable[..., Any] = "inductor") -> None:
    """From now on every layer of `module` runs compiled. Raises Refused when it has no layers that are known."""
    silence_hub()
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [layer for layer in module.modules() if isinstance(layer, GradientCheckpointingLayer)]
    if not layers:
        raise Refused(f"{type(module).__name__} has no layers that can be compiled by themselves.", fix="Set `compile_layers` to false.")
    unfuse(module)  # a compiler cannot look into kernels of our own
    for layer in layers:
        layer.compile(backend=backend, dynamic=False)
