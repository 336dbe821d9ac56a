"""Attention of many queries on AMX tiles, in C, forwards: prompts that are read, and texts that are scored.

torch's kernel reaches a tenth of what tiles can do on heads of 64 and some hundred tokens. Here sixteen queries stay in a core's cache from
their scores to their sums, and keys that no query of a block sees are skipped.

Source    tile_attention.c
We differ weights are rounded to bfloat16 before they are normalised, as in torch's kernel, and keys packed once for all heads of a group
Dims      B sequences   H key/value heads   G query heads of each   Q queries   S keys   D head size
"""

import ctypes
import functools
from typing import Any

import torch

from mygpt.lm.c_library import c_library
from mygpt.lm.processor import has_cpu_flag

_MOST_D = 128
_POINTER, _COUNT = ctypes.c_void_p, ctypes.c_int64


class _Attention(ctypes.Structure):
    _fields_ = [
        *((name, _POINTER) for name in ("q", "k", "v", "added", "seen", "out")),
        *((name, _COUNT) for name in ("B", "H", "G", "Q", "S", "D", "q_b", "q_h", "q_q", "k_b", "k_h", "k_s", "v_b", "v_h", "v_s")),
        *((name, _COUNT) for name in ("mask_b", "mask_q")),
        ("scale", ctypes.c_float),
        ("threads", ctypes.c_int32),
    ]


def suits(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> bool:
    """Whether `tile_attention` can be called with these: bfloat16 on a CPU with tiles; a mask of either kind, or causal."""
    B, _, Q, D = query.shape
    parts = (query, key, value)
    if any(one.dtype != torch.bfloat16 or not one.is_cpu or one.stride(-1) != 1 for one in parts) or D % 32 or D > _MOST_D:
        return False
    if value.shape[-1] != D or key.shape[2] < Q or _library() is None:
        return False
    if mask is None:
        return True
    is_plain = mask.dtype in (torch.bool, torch.bfloat16) and mask.shape[1] == 1 and mask.shape[2:] == (Q, key.shape[2])
    return is_plain and mask.shape[0] in (1, B) and mask.stride(-1) == 1


def tile_attention(
    query_BhQD: torch.Tensor, key_BHSD: torch.Tensor, value_BHSD: torch.Tensor, mask_B1QS: torch.Tensor | None, scaling: float | None
) -> torch.Tensor:
    """(B, Q, heads, D). Only for what `suits`. Without a mask query q sees keys up to q + S - Q; a query that sees nothing gets zeros."""
    B, heads, Q, D = query_BhQD.shape
    H, S = key_BHSD.shape[1], key_BHSD.shape[2]
    out_BQhD = query_BhQD.new_empty(B, Q, heads, D)
    address = 0 if mask_B1QS is None else mask_B1QS.data_ptr()
    is_added = mask_B1QS is not None and mask_B1QS.dtype == torch.bfloat16
    masked = (0, 0) if mask_B1QS is None else (mask_B1QS.stride(0) if len(mask_B1QS) == B else 0, mask_B1QS.stride(2))
    given = _Attention(
        *(one.data_ptr() for one in (query_BhQD, key_BHSD, value_BHSD)),
        *((address, 0) if is_added else (0, address)),
        out_BQhD.data_ptr(),
        *(B, H, heads // H, Q, S, D),
        *(stride for one in (query_BhQD, key_BHSD, value_BHSD) for stride in one.stride()[:3]),
        *masked,
        D**-0.5 if scaling is None else scaling,
        torch.get_num_threads(),
    )
    if _library().tile_attention(ctypes.byref(given)):
        raise MemoryError(f"no memory for a head of {S} keys")
    return out_BQhD


@functools.cache
def _library() -> Any:
    """The compiled function; None where it cannot be had, or where the system gives no leave to use tiles."""
    library = c_library("tile_attention.c") if has_cpu_flag("amx_bf16") else None
    if library is None or not library.tiles_allowed():
        return None
    library.tile_attention.argtypes = [ctypes.POINTER(_Attention)]
    return library
