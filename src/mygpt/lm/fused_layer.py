"""Layers shaped as Llama's, on a CPU, with one pass over memory between two matrix products (`layer_kernels`).

`fuse` gives the layers, attentions and gates of a loaded model subclasses of their own classes, whose forward passes compute the same in
fewer steps. Names, weights, hooks and what is saved stay as they were. Where the kernels do not suit (another device or number format, a
dropout at work), the class's own forward pass is called.

Source    Touvron et al. 2023, arXiv:2302.13971, section 2.2 (the shape)
Dims      B sequences   T tokens   D hidden   h heads
"""

import functools
import inspect
from typing import Any

import torch

from mygpt.lm.layer_kernels import gated, kernels, residual_norm, rotated, suits
from mygpt.lm.low_rank import projected

_MARK = "is_fused"
# Architectures of transformers whose layers were compared with the forward passes below (tests/lm/test_fused_layer.py).
_SHAPED_ALIKE = ("Llama", "Mistral", "Qwen2")


def fuse(module: Any) -> Any:
    """`module` itself, its layers changed in place where they are of a known shape and a C compiler is at hand."""
    if kernels() is None:
        return module
    for part in module.modules():
        own_class: Any = type(part)
        name = own_class.__name__
        for architecture in _SHAPED_ALIKE:
            if name == f"{architecture}DecoderLayer":
                part.__class__ = _with_forward(own_class, _layer)
            elif name == f"{architecture}Attention":
                part.__class__ = _with_forward(own_class, _attention)
            elif name == f"{architecture}MLP" and type(part.act_fn).__name__ in ("SiLU", "SiLUActivation"):
                part.__class__ = _with_forward(own_class, _mlp)
    return module


def unfuse(module: Any) -> Any:
    """`module` itself, its layers as transformers made them."""
    for part in module.modules():
        if is_fused(part):
            part.__class__ = type(part).__base__
    return module


def is_fused(part: Any) -> bool:
    return _MARK in type(part).__dict__


def is_known_decoder(decoder: Any) -> bool:
    """Whether nothing but the layers here, embeddings, a rotation and a norm is in it."""
    return type(decoder).__name__ in [f"{architecture}Model" for architecture in _SHAPED_ALIKE]


@functools.cache
def _with_forward(own_class: Any, forward: Any) -> type:
    return type(f"Fused{own_class.__name__}", (own_class,), {"forward": forward, "__module__": own_class.__module__, _MARK: True})


def _own(part: Any) -> Any:
    """The forward pass that `part` had before `fuse`."""
    return super(type(part), part).forward


def _layer(layer: Any, hidden_states: torch.Tensor, **given: Any) -> torch.Tensor:
    before, after = layer.input_layernorm, layer.post_attention_layernorm
    if not suits(hidden_states, before.weight, after.weight):
        return _own(layer)(hidden_states, **given)
    summed_BTD, normed_BTD = residual_norm(hidden_states, None, before.weight, before.variance_epsilon)
    attended_BTD, _ = layer.self_attn(hidden_states=normed_BTD, **given)
    summed_BTD, normed_BTD = residual_norm(summed_BTD, attended_BTD, after.weight, after.variance_epsilon)
    made_BTD: torch.Tensor = summed_BTD + layer.mlp(normed_BTD)
    return made_BTD


def _attention(
    attention: Any, hidden_states: torch.Tensor, position_embeddings: Any = None, attention_mask: Any = None, **given: Any
) -> Any:
    implementation = attention.config._attn_implementation
    drops = attention.training and attention.attention_dropout
    if position_embeddings is None or implementation == "eager" or drops or not suits(hidden_states, *position_embeddings):
        return _own(attention)(hidden_states, position_embeddings=position_embeddings, attention_mask=attention_mask, **given)
    from transformers import AttentionInterface

    B, T, _ = hidden_states.shape
    cache = given.pop("cache", None)
    cache = given.pop("past_key_values", None) if cache is None else cache
    query, key, value = projected(hidden_states, (attention.q_proj, attention.k_proj, attention.v_proj))
    query_BhTD, key_BhTD = (rotated(one, *position_embeddings).transpose(1, 2) for one in (query, key))
    value_BhTD = value.view(B, T, -1, attention.head_dim).transpose(1, 2)
    if cache is not None:
        kind: Any = type(cache)
        told = {"kwargs": given} if _is_told_arguments(kind) else {}  # a paged cache changes them in place
        key_BhTD, value_BhTD = cache.update(key_BhTD, value_BhTD, attention.layer_idx, **told)
    window = getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None))
    mixed_BThD, weights = AttentionInterface()[implementation](
        attention, query_BhTD, key_BhTD, value_BhTD, attention_mask, dropout=0.0, scaling=attention.scaling, sliding_window=window, **given
    )
    return projected(mixed_BThD.reshape(B, T, -1), (attention.o_proj,))[0], weights


@functools.cache
def _is_told_arguments(cache_class: Any) -> bool:
    """Whether a cache is given the arguments of attention: transformers does so from 5.24 on."""
    parameters = inspect.signature(cache_class.update).parameters.values()
    return any(p.name == "kwargs" or p.kind is p.VAR_KEYWORD for p in parameters)


def _mlp(mlp: Any, x: torch.Tensor) -> torch.Tensor:
    if not suits(x):
        made: torch.Tensor = _own(mlp)(x)
        return made
    gate, up = projected(x, (mlp.gate_proj, mlp.up_proj))
    return projected(gated(gate, up), (mlp.down_proj,))[0]
