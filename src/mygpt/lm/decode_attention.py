"""Attention of a decoding step, in C: a few queries over many cached keys, at the speed at which memory gives them.

torch's kernels take 7 µs to set up each of their small products, of which a step of 64 rows has 11,520; the file beside this one reads
keys and values once and multiplies as they come. It is compiled where it runs (`c_library`), for bfloat16 where the processor has AVX-512
BF16 and for float32 where it has AVX-512. Elsewhere torch's kernels do the work.

Source    decode_attention.c
We differ in bfloat16 scores and weights stay float32 throughout, where the kernels it stands in for round the weights
Dims      B sequences   H key/value heads   G query heads of each   Q new tokens   S keys   D head size
"""

import ctypes
import functools
from collections.abc import Callable

import torch

from mygpt.lm.c_library import c_library
from mygpt.lm.processor import has_cpu_flag

_MOST_D, _MOST_ROWS = 128, 16  # of a head: beyond, products are large enough for torch's kernels
_HEADERS = {torch.bfloat16: ("bf16.h", "avx512_bf16"), torch.float32: ("float32.h", "avx512f")}  # and what they need
_Function = Callable[..., int]


def suits(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> bool:
    """Whether `decode_attention` can be called with these: one format that this CPU has instructions for, few queries, a mask to add."""
    B, heads, Q, D = query.shape
    dtype = query.dtype
    if key.dtype != dtype or value.dtype != dtype or D % 32 or D > _MOST_D or heads // key.shape[1] * Q > _MOST_ROWS:
        return False
    if value.shape[-1] != D or not all(one.stride(-1) == 1 for one in (query, key, value)):
        return False
    if mask is None:
        return Q == 1 and _function(dtype) is not None
    is_plain = mask.dtype == dtype and mask.shape[1] == 1 and mask.shape[2:] == (Q, key.shape[2]) and mask.stride(-1) == 1
    return is_plain and mask.shape[0] in (1, B) and _function(dtype) is not None


def decode_attention(
    query_BhQD: torch.Tensor, key_BHSD: torch.Tensor, value_BHSD: torch.Tensor, mask_B1QS: torch.Tensor | None, scaling: float | None
) -> torch.Tensor:
    """(B, Q, heads, D). Only for what `suits`."""
    B, heads, Q, D = query_BhQD.shape
    H, S = key_BHSD.shape[1], key_BHSD.shape[2]
    out_BQhD = query_BhQD.new_empty(B, Q, heads, D)
    function = _function(query_BhQD.dtype)
    assert function is not None
    mask_strides = (0, 0) if mask_B1QS is None else (mask_B1QS.stride(0) if len(mask_B1QS) == B else 0, mask_B1QS.stride(2))
    failed = function(
        *(out_BQhD.data_ptr(), query_BhQD.data_ptr(), key_BHSD.data_ptr(), value_BHSD.data_ptr()),
        0 if mask_B1QS is None else mask_B1QS.data_ptr(),
        *(B, H, heads // H, Q, S, D),
        *query_BhQD.stride()[:3],
        *key_BHSD.stride()[:3],
        *value_BHSD.stride()[:3],
        *mask_strides,
        D**-0.5 if scaling is None else scaling,
        torch.get_num_threads(),
    )
    if failed:
        raise MemoryError(f"no memory for the scores of {S} keys")
    return out_BQhD


@functools.cache
def _function(dtype: torch.dtype) -> _Function | None:
    """The compiled function, or None where it cannot be had for this format."""
    if dtype not in _HEADERS or not has_cpu_flag(_HEADERS[dtype][1]):
        return None
    library = c_library("decode_attention.c", defined=(f'NUMBERS="{_HEADERS[dtype][0]}"',))
    if library is None:
        return None
    found: _Function = library.decode_attention
    found.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_int64] * 17 + [ctypes.c_float, ctypes.c_int]  # type: ignore[attr-defined]
    return found
