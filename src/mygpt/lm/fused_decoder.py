"""The layers of a decoder for a few new tokens in one call of C (`decode_layers`), where all are plain layers that `fused_layer` knows.

Weights are looked up anew in every call: training changes them in place, and `low_rank.written_in` puts others there for a while. A plain
LoRA beside a weight is computed with it. Whatever is not plain (a hook on a part, an adapter of another kind or for each row another,
another format, a backward pass) goes the way of the modules.

Dims  B trees   Q new tokens of each   D hidden   S slots   E head size
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mygpt.lm.attention import takes_lanes
from mygpt.lm.decode_layers import LayerWeights, OpenLane, Update, decode_layers, most_rows, suits
from mygpt.lm.fused_layer import is_fused, is_known_decoder
from mygpt.lm.low_rank import plain_update


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
    if any(map(_is_changed, (*fused, before, after, mlp.act_fn))):
        return None
    found = [_linear(one) for one in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)]
    found += [_linear(one) for one in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)]
    plain = [one for one in found if one is not None]
    if len(plain) < len(found):
        return None
    (q, k, v, o, gate, up, down), updates = (one for one, _ in plain), tuple(update for _, update in plain)
    attended = (before.weight, q.weight, k.weight, v.weight, o.weight, q.bias, k.bias, v.bias, o.bias)
    gated = (gate.weight, up.weight, down.weight, gate.bias, up.bias, down.bias)
    return LayerWeights(*attended, after.weight, *gated, updates)


def _linear(part: Any) -> tuple[torch.nn.Linear, Update | None] | None:
    """The matrix that `part` is, and what a LoRA adds to it; None where it is something else."""
    update = None
    if type(part) is not torch.nn.Linear:
        if (found := plain_update(part)) is None:
            return None
        part, update = part.base_layer, Update(*found[2:])
    return None if _is_changed(part) else (part, update)


def _is_changed(part: Any) -> bool:
    own = part.__dict__
    return bool(own["_forward_hooks"] or own["_forward_pre_hooks"] or "forward" in own)
