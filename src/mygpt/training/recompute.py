"""Activation checkpointing: a layer keeps its input only, and is computed again when its gradient is asked for.

Memory of the layers falls to one hidden state each and one layer's inside; a step costs about a third more
(SmolLM2-135M, 983 tokens: 134 MB instead of 820, 37 % more CPU time).

    recompute_layers(module)                 once; from then on in every forward pass with gradients
    with computed_once(module): ...          layers as they were, for whoever looks at them: sampling between two updates

Source     Chen et al. 2016, arXiv:1604.06174, section 3
We differ  transformers' own switch works in training mode only, where dropout is on; here the layers stay as they are. Layers are
           computed again with the attention that they were computed with
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from mygpt.core.errors import Refused
from mygpt.core.outbound import silence_hub
from mygpt.lm.attention import attention_set
from mygpt.lm.virtual_tokens import has_virtual_tokens


def recompute_layers(module: Any) -> Any:
    """`module`, every layer of which does so from now on. Raises Refused when no layer is known, or when they add to a cache."""
    silence_hub()
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [layer for layer in module.modules() if isinstance(layer, GradientCheckpointingLayer)]
    if not layers:
        raise Refused(f"{type(module).__name__} has no layers that can be computed again.", fix="Set `recompute` to false.")
    learnt = getattr(module, "peft_config", None) or {}
    if any(str(one.peft_type.value) == "PREFIX_TUNING" for one in learnt.values()) and not has_virtual_tokens(module):
        raise Refused(
            "Layers of an encoder-decoder add to the cache that brings a learnt prefix: computed again, they would add twice.",
            fix="Set `recompute` to false, or choose another method.",
        )

    def as_now() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), attention_set(module, module.config._attn_implementation)

    for layer in layers:
        layer.forward = partial(_computed_again, layer.forward, context_fn=as_now)
    return module


def _computed_again(inside: Callable[..., Any], *args: Any, context_fn: Callable[[], Any], **given: Any) -> Any:
    if not torch.is_grad_enabled():
        return inside(*args, **given)
    from transformers import Cache

    def or_none(value: Any) -> Any:  # a cache that the model made because nobody said that none is wanted: it would be added to twice
        return None if isinstance(value, Cache) else value

    named = {name: or_none(value) for name, value in given.items()}
    return checkpoint(inside, *map(or_none, args), use_reentrant=False, preserve_rng_state=False, context_fn=context_fn, **named)


@contextmanager
def computed_once(module: Any) -> Iterator[None]:
    """For the time of the block, layers as they were before `recompute_layers`."""
    again = {layer: vars(layer).pop("forward") for layer in module.modules() if is_recomputed(layer)}
    try:
        yield
    finally:
        for layer, forward in again.items():
            layer.forward = forward


def is_recomputed(layer: Any) -> bool:
    own = vars(layer).get("forward")
    return isinstance(own, partial) and own.func is _computed_again
