"""Attention without repeating grouped key/value heads, in the way that this processor is fastest in.

Few queries           `decode_attention`, in C, where the processor has AVX-512 (for bfloat16 with BF16) and there is a compiler; else as
                      follows
With AMX              `tile_attention`, in C, forwards, bfloat16. One core's processor time, a layer: 16 x 253 queries, 277 keys: 7.9 ms
(bfloat16 tiles)      (flash 22); 8 x 512: 12 (16); 1 x 2,048: 19 (32); 32 x 64: 1.3 (1.8)
AMX, no compiler      torch's flash kernel, forwards only. Few queries: the heads of a group are folded into them, so that one pass over the
(or float32)          keys serves all. Two cores, a layer, 64 rows, 1 query, 400 keys: 1.2 ms (plain products 3.5); 16 x 4 x 700: 0.7 (1.8);
                      10 sequences of 400: 7.7 (17)
Without               two plain matrix products up to 256 queries: the kernel is made for long sequences. Two cores with AVX512-BF16,
                      16 x 4 x 700: 0.5 ms a layer against 3.9-9.5; 32 sequences of 200: 21 against 66; from 300 the kernel wins
Packed rows           each example by itself: positions that begin anew show where
With a backward pass  plain products up to 512 queries, on either: the kernel is slow backwards. With AMX, 8 sequences of 192: 7.8 ms a
                      layer against 43; 32 of 64: 5.4 against 90; 4 of 512: 27 against 68; 2 of 1,024: as long
The processor decides, never a clock: results on one machine stay the same byte for byte.

On a GPU              few queries under a mask: two plain products, the heads of a group folded into the queries. One H200, a layer, 64 rows
                      in 8 trees of 2,208 slots: 57 us (torch's kernel 132; transformers repeats keys and values first: 140 more). cuDNN's
                      kernel is left out: it plans anew for every shape, 0.13 s forwards and backwards, and hardly two batches have one

Only what is meant by plain attention is done here: softmax(q k / sqrt(D) + mask) v. Whatever else a layer asks for (dropout,
soft-capping, position biases, a mask per head) goes to transformers' own function, and so do its masks: a sliding window stays one.

Source    grouped-query attention: Ainslie et al. 2023, arXiv:2305.13245
We differ the plain products round scores to the weights' precision before the softmax, as transformers' eager attention does
Dims      B batch   H key/value heads   G query heads per key/value head   Q queries   S keys   D head size
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mygpt.lm.decode_attention import decode_attention, suits
from mygpt.lm.layer_kernels import suits as kernels_suit
from mygpt.lm.layer_kernels import trained_attention
from mygpt.lm.processor import has_cpu_flag
from mygpt.lm.tile_attention import suits as tiles_suit
from mygpt.lm.tile_attention import tile_attention
from mygpt.lm.varlen import PackedRow, varlen_name, varlen_suits


@dataclass(frozen=True)
class Lanes:
    """Keys or values of a batch in several rectangles (b, H, S, D): rows that are far apart in length do not pad one another."""

    parts: tuple[torch.Tensor, ...]


_NAME = "mygpt_grouped"
_FEW_QUERIES = 256
_FEW_TRAINED_QUERIES = 512
_MOST_TRAINED_KEYS = 4_096
_FOLDED_QUERIES = 16
_ON_GPU = "mygpt_folded"
_NOT_PLAIN = ("softcap", "s_aux", "position_bias", "cache")  # arguments that change the result
_WITHOUT_PLANS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@contextmanager
def grouped_attention(module: Any) -> Iterator[None]:
    """Use it in `module` (a transformers model whose attention is plain SDPA) for the time of the block."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    if _is_ours(module):
        name, function = _NAME, _outside_graphs()
    elif module.config._attn_implementation in ("sdpa", _ON_GPU) and _device_of(module).type == "cuda":
        name, function = _ON_GPU, attention_on_gpu
    else:
        yield  # eager or a kernel that the architecture needs (soft-capping, sinks): leave it
        return
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, sdpa_mask)  # without this, a layer with a sliding window would be given no mask
    with attention_set(module, name):
        yield


@functools.cache
def _outside_graphs() -> Callable[..., tuple[torch.Tensor, None]]:
    """What torch.compile steps over: which kernel, and where examples of a packed row end, is decided from values."""

    @torch.compiler.disable
    def attention(*args: Any, **more: Any) -> tuple[torch.Tensor, None]:
        return _attention(*args, **more)

    return attention


@contextmanager
def packed_attention(module: Any, positions_BT: torch.Tensor, packed_row: PackedRow | None = None) -> Iterator[dict[str, Any]]:
    """For rows of several examples, in which positions begin anew: what computes no block between them on this device.

    Yields further arguments for the forward pass. CPU: `grouped_attention`, block by block. GPU: torch's kernel for sequences of several
    lengths (`lm/varlen`) where it can stand for the architecture's own; else FlexAttention; else the model's own under a block-diagonal
    mask. `packed_row`: where it is known already, the device is not asked.
    """
    now = module.config._attn_implementation
    if _is_on_cpu(module):
        with grouped_attention(module):
            yield {}
    elif varlen_suits(module, positions_BT):
        with attention_set(module, varlen_name()):
            yield {"packed_row": packed_row or PackedRow.of(positions_BT)}
    else:
        with attention_set(module, "flex_attention" if now == "sdpa" and getattr(module, "_supports_flex_attn", False) else now):
            yield {}


@contextmanager
def attention_set(module: Any, name: str) -> Iterator[None]:
    """For the time of the block, `module` looks its attention up by this name."""
    before = module.config._attn_implementation
    module.config._attn_implementation = name
    try:
        yield
    finally:
        module.config._attn_implementation = before


def takes_lanes(module: Any) -> bool:
    """Whether every layer of `module` hands keys and values, as the cache gave them, to the function registered here."""
    return _is_ours(module) and bool(getattr(module, "_supports_attention_backend", False))


def _is_ours(module: Any) -> bool:
    return module.config._attn_implementation in ("sdpa", _NAME) and _is_on_cpu(module)


def _is_on_cpu(module: Any) -> bool:
    return _device_of(module).type == "cpu"


def _device_of(module: Any) -> torch.device:
    device: torch.device = next(module.parameters()).device
    return device


def attention_on_gpu(
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
    """Called by transformers, which chooses the names of the arguments."""
    few = query.shape[2] <= _FOLDED_QUERIES
    plain = attention_mask is not None and attention_mask.shape[1] == 1 and not dropout
    if few and plain and all(more.get(name) is None for name in _NOT_PLAIN):
        return _products(query, key, value, attention_mask, scaling), None
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    with sdpa_kernel(_WITHOUT_PLANS):
        mixed: tuple[torch.Tensor, None] = sdpa_attention_forward(
            layer, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **more
        )
    return mixed


def _attention(
    layer: Any,
    query: torch.Tensor,
    key: torch.Tensor | Lanes,
    value: torch.Tensor | Lanes,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Called by transformers, which chooses the names of the arguments. `attention_mask`: boolean, or added to the scores."""
    if isinstance(key, Lanes) and isinstance(value, Lanes):
        assert attention_mask is not None
        done, first = [], 0
        for k, v in zip(key.parts, value.parts, strict=True):
            own = slice(first, first := first + len(k))
            mask = attention_mask[own, ..., : k.shape[2]]
            done.append(_attention(layer, query[own], k, v, mask, dropout, scaling, is_causal, **more)[0])
        return torch.cat(done), None
    assert isinstance(key, torch.Tensor) and isinstance(value, torch.Tensor)
    Q, D, S = query.shape[2], query.shape[3], key.shape[2]
    if len(lengths := _packed_lengths(attention_mask, Q, S, more.pop("position_ids", None))) > 1:
        assert attention_mask is not None
        done, first = [], 0
        for length in lengths:
            own = slice(first, first := first + length)
            mask = attention_mask[..., own, own]
            parts = (query[:, :, own], key[:, :, own], value[:, :, own])
            done.append(_attention(layer, *parts, mask, dropout, scaling, is_causal, **more)[0])
        return torch.cat(done, dim=1), None
    causal = is_causal if is_causal is not None else getattr(layer, "is_causal", True)
    mask_is_plain = (Q == 1 or (Q == S and causal)) if attention_mask is None else attention_mask.shape[1] == 1
    is_plain = mask_is_plain and not dropout and all(more.get(name) is None for name in _NOT_PLAIN)
    is_trained = torch.is_grad_enabled() and any(one.requires_grad for one in (query, key, value))
    is_in_c = is_plain and not is_trained and not isinstance(query, FakeTensor)  # a forecast's tensors have no data to point to
    if is_in_c and suits(query, key, value, attention_mask):
        return decode_attention(query, key, value, attention_mask, scaling), None
    if is_in_c and tiles_suit(query, key, value, attention_mask):
        return tile_attention(query, key, value, attention_mask, scaling), None
    if is_plain and has_tiles() and not is_trained:
        return _flash(query, key, value, attention_mask, scaling), None
    if is_trained and is_plain and Q <= _FEW_TRAINED_QUERIES and _suits_training(query, key, value, attention_mask):
        scaling = D**-0.5 if scaling is None else scaling
        return trained_attention(query, key, value, attention_mask, scaling), None
    if (_FEW_TRAINED_QUERIES if is_trained else _FEW_QUERIES) < Q or not is_plain:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        mixed: tuple[torch.Tensor, None] = sdpa_attention_forward(
            layer, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **more
        )
        return mixed

    return _products(query, key, value, attention_mask, scaling), None


def _products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float | None
) -> torch.Tensor:
    """(B, Q, heads, D), by two plain matrix products. Without a mask: causal."""
    B, heads, Q, D = query.shape
    H, S = key.shape[1], key.shape[2]
    G = heads // H
    scaling = D**-0.5 if scaling is None else scaling
    scores = torch.matmul(query.reshape(B, H, G * Q, D) * scaling, key.transpose(-1, -2)).view(B, H, G, Q, S)
    lowest = torch.finfo(scores.dtype).min
    if mask is None:
        hidden = torch.ones(Q, S, dtype=torch.bool, device=query.device).triu(S - Q + 1)
        scores.masked_fill_(hidden, lowest)
    elif mask.dtype == torch.bool:
        scores.masked_fill_(~mask[:, :, None], lowest)
    else:
        scores.add_(mask[:, :, None])
    weights = scores.softmax(-1).view(B, H, G * Q, S)
    mixed_BHQD = torch.matmul(weights, value).view(B, heads, Q, -1)
    return mixed_BHQD.transpose(1, 2).contiguous()


def _packed_lengths(mask: torch.Tensor | None, Q: int, S: int, positions: Any) -> list[int]:
    """How long the examples of one packed row are; empty where it is no packed row.

    Transformers' own sign of one: positions that begin anew. Its mask must agree that an example's first token sees nothing before.
    """
    if type(mask) is not torch.Tensor or mask.dtype != torch.bool or mask.shape[:2] != (1, 1) or Q != S or Q == 1:
        return []  # or there is no mask, or one without data (a forecast's)
    if not isinstance(positions, torch.Tensor) or positions.shape != (1, Q):
        return []
    starts = (positions[0] == 0).nonzero()[:, 0]
    if len(starts) < 2 or int(starts[0]) != 0 or bool(mask[0, 0, starts[1:], starts[1:] - 1].any()):
        return []
    bounds = [*starts.tolist(), Q]
    return [end - start for start, end in itertools.pairwise(bounds)]


def _flash(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float | None) -> torch.Tensor:
    """(B, Q, heads, D). Without a mask: causal, or a single query that sees all."""
    B, heads, Q, D = query.shape
    H, S = key.shape[1], key.shape[2]
    G = heads // H
    if Q > _FOLDED_QUERIES or G == 1:
        mixed_BhQD = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None and Q > 1, scale=scaling, enable_gqa=G > 1
        )
        return mixed_BhQD.transpose(1, 2).contiguous()
    if mask is None and Q > 1:
        mask = torch.ones(Q, S, dtype=torch.bool, device=query.device).tril(S - Q)[None, None]
    if mask is not None and Q > 1:
        mask = mask[:, :, None].expand(*mask.shape[:2], G, Q, S).reshape(*mask.shape[:2], G * Q, S)
    folded_BHqD = F.scaled_dot_product_attention(query.reshape(B, H, G * Q, D), key, value, attn_mask=mask, scale=scaling)
    return folded_BHqD.view(B, heads, Q, -1).transpose(1, 2).contiguous()


def _suits_training(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> bool:
    return (mask is None or mask.dtype == torch.bool) and key.shape[2] <= _MOST_TRAINED_KEYS and kernels_suit(query, key, value)


@functools.cache
def has_tiles() -> bool:
    """Whether this processor multiplies bfloat16 in tiles (AMX)."""
    return has_cpu_flag("amx_bf16")
