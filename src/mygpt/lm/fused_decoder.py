"""The layers of a decoder for a few new tokens in one call of C (`decode_layers`), where all are plain layers that `fused_layer` knows.

Weights are looked up anew in every call: training changes them in place, and `low_rank.written_in` puts others there for a while. Whatever
is not plain (a hook on a part, an adapter that is not written in, another format, a backward pass) goes the way of the modules.

Dims  B trees   Q new tokens of each   D hidden   S slots   E head size
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mygpt.lm.attention import takes_lanes
from mygpt.lm.decode_layers import LayerWeights, OpenLane, decode_layers, most_rows, suits
from mygpt.lm.fused_layer import is_fused, is_known_decoder


def decoded(decoder: Any, given: dict[str, Any], lanes: Sequence[OpenLane]) -> torch.Tensor | None:
    """What `decoder` makes of new tokens (B, Q, D), their keys and values written into `lanes`; None where its modules have to do it.

    `given`: its arguments. The mask among them, by type of layer where there are several: (B, 1, Q, S), 0 where a token may look, and the
    lowest number elsewhere.
    """
    ids_BQ, mask, dtype = given["input_ids"], given["attention_mask"], decoder.dtype
    has_begun = all(len(lane.keys_BHSE) == decoder.config.num_hidden_layers for lane in lanes)
    if ids_BQ.numel() > most_rows(dtype) or torch.is_grad_enabled() or not has_begun or not _is_plain_decoder(decoder, given):
        return None
    modules = decoder.layers[: decoder.config.num_hidden_layers]
    layers = [one for layer in modules if (one := _weights(layer)) is not None]
    attention = modules[0].self_attn
    E = attention.head_dim
    if len(layers) < len(modules) or not suits(layers, len(layers[0].k) // E, E):
        return None
    epsilons = {norm.variance_epsilon for layer in modules for norm in (layer.input_layernorm, layer.post_attention_layernorm)}
    hidden_BQD = decoder.embed_tokens(ids_BQ)
    angles = decoder.rotary_emb(hidden_BQD, position_ids=given["position_ids"])
    masks, kinds = [mask], [0] * len(layers)
    if isinstance(mask, Mapping):
        masks, kinds = list(mask.values()), [list(mask).index(kind) for kind in decoder.config.layer_types[: len(layers)]]
    stored = (hidden_BQD, *angles, *masks, layers[0].q, *(one for lane in lanes for one in (lane.keys_BHSE[0], lane.values_BHSE[0])))
    if len(epsilons) > 1 or any(one.dtype != dtype for one in stored) or angles[0].shape[-1] != E:
        return None
    made_BQD = decode_layers(hidden_BQD, angles, layers, lanes, masks, kinds, epsilon=epsilons.pop(), scale=attention.scaling)
    normed_BQD: torch.Tensor = decoder.norm(made_BQD)
    return normed_BQD


def _is_plain_decoder(decoder: Any, given: dict[str, Any]) -> bool:
    """Of a known class, and nothing changes what goes in (a hook for calls without a cache leaves it as it is) or comes out."""
    if not is_known_decoder(decoder) or not takes_lanes(decoder) or decoder._forward_hooks or "forward" in decoder.__dict__:
        return False
    named = decoder._forward_pre_hooks_with_kwargs
    return all(number in named and hook(decoder, (), dict(given)) is None for number, hook in decoder._forward_pre_hooks.items())


def _weights(layer: Any) -> LayerWeights | None:
    """Of a layer whose parts all do what their classes say; else None."""
    attention, mlp, before, after = layer.self_attn, layer.mlp, layer.input_layernorm, layer.post_attention_layernorm
    fused = (layer, attention, mlp)
    if not all(map(is_fused, fused)) or (attention.training and attention.attention_dropout):
        return None
    q, k, v, o = attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj
    gate, up, down = mlp.gate_proj, mlp.up_proj, mlp.down_proj
    linear = (q, k, v, o, gate, up, down)
    if any(type(one) is not torch.nn.Linear for one in linear) or any(map(_is_changed, (*fused, before, after, mlp.act_fn, *linear))):
        return None
    attended = (before.weight, q.weight, k.weight, v.weight, o.weight, q.bias, k.bias, v.bias, o.bias)
    return LayerWeights(*attended, after.weight, gate.weight, up.weight, down.weight, gate.bias, up.bias, down.bias)


def _is_changed(part: Any) -> bool:
    own = part.__dict__
    return bool(own["_forward_hooks"] or own["_forward_pre_hooks"] or "forward" in own)
