"""torch.compile for each layer by itself: its products and norms are fused, its attention stays what `lm/attention` chooses.

A layer is compiled once for each length of row that it meets, so rows must come in few lengths (`shape_ladder`): packed rows do. Layers
that are alike share what was compiled. Of a layer that is computed again (`recompute`) the inside is compiled: a compiler gives up at the
checkpoint around it, without a word.

Source     PyTorch 2: Ansel et al. 2024, ASPLOS; compilation by region, as torchtitan and torchtune do it
We differ  lengths are fixed unless `any_length` is asked for: a shape is compiled at its first row, and nothing is compiled again
"""

from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

import torch

from mygpt.core.errors import Refused
from mygpt.core.outbound import silence_hub
from mygpt.lm.fused_layer import unfuse
from mygpt.training.recompute import is_recomputed

NUM_SHAPES = 4
_MOST_COMPILED = 64  # of one piece of code; torch's 8 are what one training of adapters takes: 4 lengths, with gradients below and without


def compile_layers(module: Any, *, any_length: bool = False, backend: str | Callable[..., Any] = "inductor") -> None:
    """From now on every layer of `module` runs compiled. Raises Refused when it has no layers that are known.

    `any_length`: once for rows of all lengths, where these are many.
    """
    silence_hub()
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [layer for layer in module.modules() if isinstance(layer, GradientCheckpointingLayer)]
    if not layers:
        raise Refused(f"{type(module).__name__} has no layers that can be compiled by themselves.", fix="Set `compile_layers` to false.")
    unfuse(module)  # a compiler cannot look into kernels of our own
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_COMPILED)  # beyond it nothing is compiled
    torch._functorch.config.guess_tangent_strides_as_outputs = True  # torch 2.11 copies every gradient that attention gives back
    for norm in module.get_decoder().children() if hasattr(module, "get_decoder") else ():
        if type(norm).__name__.endswith("Norm"):  # the last: a dozen passes over memory in one
            norm.compile(backend=backend, dynamic=any_length)
    for layer in layers:
        if is_recomputed(layer):
            again: Any = layer.forward
            inside = torch.compile(MethodType(type(layer).forward, layer), backend=backend, dynamic=any_length)
            layer.forward = partial(again.func, inside, **again.keywords)  # type: ignore[method-assign]
        else:
            layer.compile(backend=backend, dynamic=any_length)
