"""The next token of every row of logits, in C (`token_choice.c`): rows stay in a core's cache, where torch makes a dozen tensors and sorts.

Order and meaning are those of `infer/sampling.py`, which goes on by itself where there is no compiler.

Source    token_choice.c
We differ thresholds and draws are sums in float64 of sums in float32
Dims      R rows   V vocabulary
"""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from mygpt.core.errors import MygptError
from mygpt.lm.c_library import c_library


class Choice(NamedTuple):
    """What a row's token is chosen by. `temperature` 0: the likeliest; `drawn`: a number from 0 to 1, 1 excluded."""

    temperature: float
    top_p: float
    min_p: float
    top_k: int
    keep_crossing: bool
    drawn: float


class _Choice(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_float) for name in ("temperature", "min_p")),
        *((name, ctypes.c_int32) for name in ("top_k", "keep_crossing")),
        *((name, ctypes.c_double) for name in ("top_p", "drawn")),
    ]


def suits(logits_RV: torch.Tensor) -> bool:
    is_plain = logits_RV.is_cpu and logits_RV.dtype == torch.float32 and logits_RV.is_contiguous()
    return is_plain and _library() is not None


def choose_tokens(logits_RV: torch.Tensor, choices: Sequence[Choice]) -> torch.Tensor:
    """Token ids (R). Only where `suits`. Raises MygptError where a row has no numbers to choose by."""
    R, V = logits_RV.shape
    ids_R = torch.empty(R, dtype=torch.long)
    given = (_Choice * R)(*(_Choice(**{**one._asdict(), "top_k": min(one.top_k, V)}) for one in choices))
    if _library().choose_tokens(ids_R.data_ptr(), logits_RV.data_ptr(), given, R, V, torch.get_num_threads()):
        raise MemoryError(f"no memory for a row of {V} logits")
    if without := int((ids_R < 0).sum()):
        fix = "Its weights are damaged, or too large for their number format: `mygpt verify` it, or load it in float32."
        raise MygptError(f"The model's logits are no numbers (NaN or infinite) in {without} of {R} rows.", fix=fix)
    return ids_R


def log_sums(logits_RV: torch.Tensor) -> torch.Tensor:
    """The logarithm of the sum of exponentials (R), without a gradient; in C where it `suits`, a fifth of torch's time."""
    if logits_RV.is_cuda:  # two kernels, where torch's logsumexp is four passes; read at the likeliest token, which is never minus infinity
        best_R1 = logits_RV.argmax(-1, keepdim=True)
        return (logits_RV.gather(-1, best_R1) - logits_RV.log_softmax(-1).gather(-1, best_R1))[:, 0]
    if not suits(logits_RV):
        return logits_RV.logsumexp(-1)
    R, V = logits_RV.shape
    sums_R = torch.empty(R)
    _library().log_sums(sums_R.data_ptr(), logits_RV.data_ptr(), R, V, torch.get_num_threads())
    return sums_R


@functools.cache
def _library() -> Any:
    library = c_library("token_choice.c")
    if library is not None:
        library.choose_tokens.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64] * 2 + [ctypes.c_int]
        library.log_sums.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 2 + [ctypes.c_int]
        library.log_sums.restype = None
    return library
