"""Attention as plain matrix products where torch's CPU flash kernel is slow: few queries, or short sequences.

The flash kernel is made for long sequences. Measured on two cores in bfloat16: 4 queries over 700 keys, 16 sequences: 3.9-9.5 ms a
layer against 0.5 ms here; 32 sequences of 200: 66 against 21 ms; from about 300 the kernel wins and is used. Grouped key/value heads
are not repeated.

Source  grouped-query attention: Ainslie et al. 2023, arXiv:2305.13245
Dims    B batch   H key/value heads   G query heads per key/value head   Q queries   S keys   D head size
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F

_NAME = "mygpt_grouped"
_FEW_QUERIES = 256


@contextmanager
def grouped_attention(module: Any) -> Iterator[None]:
    """Use it in `module` (a transformers model whose attention is plain SDPA, on a CPU) for the time of the block."""
    from transformers import AttentionInterface

    on_cpu = next(module.parameters()).device.type == "cpu"
    if module.config._attn_implementation != "sdpa" or not on_cpu:
        yield  # eager or a kernel that the architecture needs (soft-capping, sinks): leave it
        return
    AttentionInterface.register(_NAME, _attention)
    module.config._attn_implementation = _NAME
    try:
        yield
    finally:
        module.config._attn_implementation = "sdpa"


def _attention(
    layer: Any,
    query: torch.Tensor,
    key_BHSD: torch.Tensor,
    value_BHSD: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    B, heads, Q, D = query.shape
    H, S = key_BHSD.shape[1], key_BHSD.shape[2]
    G = heads // H
    scaling = D**-0.5 if scaling is None else scaling
    if Q > _FEW_QUERIES:
        keys, values = (x.repeat_interleave(G, 1) if G > 1 else x for x in (key_BHSD, value_BHSD))
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scaling, is_causal=mask is None and Q > 1)
        return mixed.transpose(1, 2).contiguous(), None
    if mask is None:
        mask = torch.full((Q, S), torch.finfo(query.dtype).min, dtype=query.dtype, device=query.device).triu(S - Q + 1)[None, None]
    scores = torch.matmul(query.reshape(B, H, G * Q, D) * scaling, key_BHSD.transpose(-1, -2)).view(B, H, G, Q, S)
    weights = scores.add_(mask[:, :, None]).softmax(-1).view(B, H, G * Q, S)
    mixed = torch.matmul(weights, value_BHSD).view(B, heads, Q, -1)
    return mixed.transpose(1, 2).contiguous(), None
