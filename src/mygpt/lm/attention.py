"""Attention as plain matrix products where torch's CPU flash kernel is slow: few queries, or short sequences.

The flash kernel is made for long sequences. Measured on two cores in bfloat16: 4 queries over 700 keys, 16 sequences: 3.9-9.5 ms a
layer against 0.5 ms here; 32 sequences of 200: 66 against 21 ms; from about 300 the kernel wins and is used. Grouped key/value heads
are not repeated.

Only what is meant by plain attention is done here: softmax(q k / sqrt(D) + mask) v. Whatever else a layer asks for (dropout,
soft-capping, position biases, a mask per head) goes to transformers' own function, and so do its masks: a sliding window stays one.

Source    grouped-query attention: Ainslie et al. 2023, arXiv:2305.13245
We differ from the flash kernel: scores are rounded to the weights' precision before the softmax, as in transformers' eager attention
Dims      B batch   H key/value heads   G query heads per key/value head   Q queries   S keys   D head size
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_NAME = "mygpt_grouped"
_FEW_QUERIES = 256
_NOT_PLAIN = ("softcap", "s_aux", "position_bias", "cache")  # arguments that change the result


@contextmanager
def grouped_attention(module: Any) -> Iterator[None]:
    """Use it in `module` (a transformers model whose attention is plain SDPA, on a CPU) for the time of the block."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    on_cpu = next(module.parameters()).device.type == "cpu"
    if module.config._attn_implementation != "sdpa" or not on_cpu:
        yield  # eager or a kernel that the architecture needs (soft-capping, sinks): leave it
        return
    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)  # without this, a layer with a sliding window would be given no mask
    module.config._attn_implementation = _NAME
    try:
        yield
    finally:
        module.config._attn_implementation = "sdpa"


def _attention(
    layer: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Called by transformers, which chooses the names of the arguments. `attention_mask`: boolean, or added to the scores."""
    B, heads, Q, D = query.shape
    H, S = key.shape[1], key.shape[2]
    causal = is_causal if is_causal is not None else getattr(layer, "is_causal", True)
    mask_is_plain = (Q == 1 or (Q == S and causal)) if attention_mask is None else attention_mask.shape[1] == 1
    if Q > _FEW_QUERIES or not mask_is_plain or dropout or any(more.get(name) is not None for name in _NOT_PLAIN):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        mixed: tuple[torch.Tensor, None] = sdpa_attention_forward(
            layer, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **more
        )
        return mixed

    G = heads // H
    scaling = D**-0.5 if scaling is None else scaling
    scores = torch.matmul(query.reshape(B, H, G * Q, D) * scaling, key.transpose(-1, -2)).view(B, H, G, Q, S)
    lowest = torch.finfo(scores.dtype).min
    if attention_mask is None:
        hidden = torch.ones(Q, S, dtype=torch.bool, device=query.device).triu(S - Q + 1)
        scores.masked_fill_(hidden, lowest)
    elif attention_mask.dtype == torch.bool:
        scores.masked_fill_(~attention_mask[:, :, None], lowest)
    else:
        scores.add_(attention_mask[:, :, None])
    weights = scores.softmax(-1).view(B, H, G * Q, S)
    mixed_BHQD = torch.matmul(weights, value).view(B, heads, Q, -1)
    return mixed_BHQD.transpose(1, 2).contiguous(), None
