"""Norm, rotation, gate and attention weights of a transformer layer on a CPU, each in one pass over memory, both ways (`layer.c`).

Source    layer.c names the papers
We differ everything between reading and writing is float32 and rounded once, where transformers rounds a norm three times in bfloat16
Dims      N rows   D hidden or head size   F width of the gate   B sequences   H key/value heads   G query heads of each   T tokens   S keys
"""

import ctypes
import functools
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from mygpt.lm.c_library import c_library

_MOST = 16_384  # elements of a row (layer.c, MOST)
_POINTER, _COUNT, _FACTOR, _FLAG = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
_SIGNATURES = {
    "norm": [_POINTER] * 6 + [_COUNT] * 2 + [_FACTOR, _FLAG, _FLAG],
    "norm_backward": [_POINTER] * 7 + [_COUNT] * 2 + [_FLAG, _FLAG],
    "gate": [_POINTER] * 3 + [_COUNT] * 2 + [_FLAG, _FLAG],
    "gate_backward": [_POINTER] * 5 + [_COUNT] * 2 + [_FLAG, _FLAG],
    "rotate": [_POINTER] * 2 + [_COUNT] + [_POINTER] * 2 + [_COUNT] * 3 + [_FACTOR, _FLAG, _FLAG],
    "attention_weights": [_POINTER] * 2 + [_COUNT] * 5 + [_FACTOR, _FLAG, _FLAG],
    "attention_weights_backward": [_POINTER] * 2 + [_COUNT] * 3 + [_FLAG, _FACTOR, _FLAG, _FLAG],
}


@functools.cache
def kernels() -> Any:
    """The compiled functions by name; None where they cannot be had."""
    library = c_library("layer.c")
    for name, types in _SIGNATURES.items() if library else ():
        function = getattr(library, name)
        function.argtypes, function.restype = types, None
    return library


def suits(*tensors: torch.Tensor) -> bool:
    """Whether the kernels may be given these: on a CPU, all bfloat16 or all float32, rows that fit their buffers."""
    dtype = tensors[0].dtype
    if dtype not in (torch.bfloat16, torch.float32) or any(t.dtype != dtype or t.device.type != "cpu" for t in tensors):
        return False
    return all(t.shape[-1] <= _MOST for t in tensors) and kernels() is not None


def residual_norm(x: torch.Tensor, more: torch.Tensor | None, weight_D: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(x + more, its norm times the weight); all (..., D), `more` may be None."""
    if not torch.is_grad_enabled():
        return _norm(x, more, weight_D, eps)[:2]
    summed, normed = _ResidualNorm.apply(x, more, weight_D, eps)  # type: ignore[no-untyped-call]
    return summed, normed


def gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up; all (..., F)."""
    if not torch.is_grad_enabled():
        return _gate(gate.contiguous(), up.contiguous())
    made: torch.Tensor = _Gate.apply(gate, up)  # type: ignore[no-untyped-call]
    return made


def rotated(x_BTC: torch.Tensor, cosines_BTD: torch.Tensor, sines_BTD: torch.Tensor) -> torch.Tensor:
    """(B, T, heads, D) of (B, T, heads * D): every head turned by the angles of its position, whose halves are alike."""
    if not torch.is_grad_enabled():
        return _turn(x_BTC, cosines_BTD, sines_BTD, 1.0)
    made: torch.Tensor = _Rotation.apply(x_BTC, cosines_BTD, sines_BTD)  # type: ignore[no-untyped-call]
    return made


def trained_attention(
    query_BhTD: torch.Tensor, key_BHSD: torch.Tensor, value_BHSD: torch.Tensor, seen_B1TS: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    """(B, T, heads, D). `seen`: boolean, (B or 1, 1, T, S); None: causal. What a backward pass needs is one weight for each pair."""
    made: torch.Tensor = _Attention.apply(query_BhTD, key_BHSD, value_BHSD, seen_B1TS, scaling)  # type: ignore[no-untyped-call]
    return made


def _half(x: torch.Tensor) -> int:
    return int(x.dtype == torch.bfloat16)


def _norm(
    x: torch.Tensor, more: torch.Tensor | None, weight_D: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(x + more, its norm, 1 / root mean square of every row)."""
    x, D = x.contiguous(), x.shape[-1]
    more = None if more is None else more.contiguous()
    summed, normed = x if more is None else torch.empty_like(x), torch.empty_like(x)
    inverse_N = torch.empty(x.numel() // D, dtype=torch.float32)
    parts = (part.data_ptr() for part in (normed, summed, inverse_N, x))
    added = 0 if more is None else more.data_ptr()
    kernels().norm(*parts, added, weight_D.data_ptr(), len(inverse_N), D, eps, torch.get_num_threads(), _half(x))
    return summed, normed, inverse_N


def _gate(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    made, F = torch.empty_like(up), gate.shape[-1]
    parts = (made.data_ptr(), gate.data_ptr(), up.data_ptr())
    kernels().gate(*parts, gate.numel() // F, F, torch.get_num_threads(), _half(gate))
    return made


class _ResidualNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, more: torch.Tensor | None, weight_D: torch.Tensor, eps: float) -> Any:
        summed, normed, inverse_N = _norm(x, more, weight_D, eps)
        ctx.save_for_backward(summed, inverse_N, weight_D)
        ctx.adds = more is not None
        return summed.view_as(summed), normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_summed: torch.Tensor | None, d_normed: torch.Tensor) -> Any:
        summed, inverse_N, weight_D = ctx.saved_tensors
        N, D, threads = len(inverse_N), summed.shape[-1], torch.get_num_threads()
        d_normed = d_normed.contiguous()
        d_summed = None if d_summed is None else d_summed.contiguous()
        dx = torch.empty_like(summed)
        dw_PD = torch.zeros(threads, D) if ctx.needs_input_grad[2] else None
        kernels().norm_backward(
            dx.data_ptr(),
            0 if dw_PD is None else dw_PD.data_ptr(),
            d_normed.data_ptr(),
            0 if d_summed is None else d_summed.data_ptr(),
            *(part.data_ptr() for part in (summed, inverse_N, weight_D)),
            *(N, D, threads, _half(dx)),
        )
        return dx, dx if ctx.adds else None, None if dw_PD is None else dw_PD.sum(0).to(weight_D.dtype), None


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> Any:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        return _gate(gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_made: torch.Tensor) -> Any:
        gate, up = ctx.saved_tensors
        d_made, F, threads = d_made.contiguous(), gate.shape[-1], torch.get_num_threads()
        d_gate, d_up = torch.empty_like(gate), torch.empty_like(up)
        parts = (d_gate, d_up, d_made, gate, up)
        kernels().gate_backward(*(part.data_ptr() for part in parts), gate.numel() // F, F, threads, _half(gate))
        return d_gate, d_up


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BTC: torch.Tensor, cosines_BTD: torch.Tensor, sines_BTD: torch.Tensor) -> Any:
        ctx.save_for_backward(cosines_BTD, sines_BTD)
        return _turn(x_BTC, cosines_BTD, sines_BTD, 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_made_BThD: torch.Tensor) -> Any:
        cosines_BTD, sines_BTD = ctx.saved_tensors
        return _turn(d_made_BThD.flatten(2), cosines_BTD, sines_BTD, -1.0).flatten(2), None, None


def _turn(x_BTC: torch.Tensor, cosines_BTD: torch.Tensor, sines_BTD: torch.Tensor, sign: float) -> torch.Tensor:
    B, T, C = x_BTC.shape
    D = cosines_BTD.shape[-1]
    if x_BTC.stride(2) != 1 or x_BTC.stride(0) != T * x_BTC.stride(1):
        x_BTC = x_BTC.contiguous()
    angles = [a.expand(B, T, D).contiguous() for a in (cosines_BTD, sines_BTD)]
    made_BThD = x_BTC.new_empty(B, T, C // D, D)
    kernels().rotate(
        *(made_BThD.data_ptr(), x_BTC.data_ptr(), x_BTC.stride(1), angles[0].data_ptr(), angles[1].data_ptr()),
        *(B * T, C // D, D, sign, torch.get_num_threads(), _half(x_BTC)),
    )
    return made_BThD


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_BhTD: torch.Tensor, k_BHSD: torch.Tensor, v_BHSD: torch.Tensor, seen: torch.Tensor | None, scaling: float
    ) -> Any:
        B, heads, T, D = q_BhTD.shape
        H, S = k_BHSD.shape[1:3]
        q_NQD = q_BhTD.reshape(B * H, heads // H * T, D)
        k_NSD, v_NSD = k_BHSD.reshape(B * H, S, D), v_BHSD.reshape(B * H, S, -1)
        weights_NQS = torch.bmm(q_NQD, k_NSD.transpose(1, 2))
        seen_bytes = None if seen is None else seen.contiguous()
        kernels().attention_weights(
            weights_NQS.data_ptr(),
            0 if seen_bytes is None else seen_bytes.data_ptr(),
            0 if seen_bytes is None or len(seen_bytes) == 1 else T * S,
            *(B, heads, T, S, scaling, torch.get_num_threads(), _half(weights_NQS)),
        )
        mixed_BhTD = torch.bmm(weights_NQS, v_NSD).view(B, heads, T, -1)
        ctx.save_for_backward(q_NQD, k_NSD, v_NSD, weights_NQS)
        ctx.shape, ctx.scaling, ctx.causal = (B, heads, H, T, S, D), scaling, seen is None
        return mixed_BhTD.transpose(1, 2).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_mixed_BThD: torch.Tensor) -> Any:
        q_NQD, k_NSD, v_NSD, weights_NQS = ctx.saved_tensors
        B, heads, H, T, S, D = ctx.shape
        d_mixed_NQD = d_mixed_BThD.transpose(1, 2).reshape(B * H, heads // H * T, -1)
        d_v_NSD = torch.bmm(weights_NQS.transpose(1, 2), d_mixed_NQD)
        d_scores_NQS = torch.bmm(d_mixed_NQD, v_NSD.transpose(1, 2))
        kernels().attention_weights_backward(
            *(d_scores_NQS.data_ptr(), weights_NQS.data_ptr(), B * heads * T, T, S, int(ctx.causal)),
            *(ctx.scaling, torch.get_num_threads(), _half(weights_NQS)),
        )
        d_q, d_k = torch.bmm(d_scores_NQS, k_NSD), torch.bmm(d_scores_NQS.transpose(1, 2), q_NQD)
        return d_q.view(B, heads, T, D), d_k.view(B, H, S, D), d_v_NSD.view(B, H, S, -1), None, None
