"""Kernels of our own for a GPU, in Triton: what a training step otherwise passes over memory for many times.

    cross_entropy    a row of logits is read once and its gradient written in its place; torch passes over float32 copies of them
    scale            by a number that only the device knows
    squares, adamw   all parameters in one launch, by a table of their addresses: 30 bytes a weight where torch's fused AdamW between
                     copies in float32 moves 52

Where Triton, or the C compiler that it asks for, is missing, there are none, and callers use torch's own.

Source     softmax in one pass: Milakov and Gimelshein 2018, arXiv:1805.02867; the gradient in place: Hsu et al. 2024, arXiv:2410.10989;
           AdamW: Loshchilov and Hutter 2017, arXiv:1711.05101
Dims       N labels   V vocabulary   P parameters
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch

BLOCK = 2048  # weights of one program of `squares` and `adamw`
_LARGEST_ROW_PART = 32_768  # logits that a program holds at once


@dataclass(frozen=True)
class Kernels:
    """Each is started as kernel[(programs,)](arguments)."""

    cross_entropy: Any
    scale: Any
    squares: Any
    adamw: Any
    formats: dict[torch.dtype, Any]  # of weights and gradients, as FORMAT; WIDE: what divides every size


@functools.cache
def gpu_kernels(device: torch.device) -> Kernels | None:
    """Compiled once for a device, and tried. None where that is not possible."""
    if device.type != "cuda":
        return None
    try:
        kernels = _kernels()
        nats = cross_entropy_in_place(kernels, torch.zeros(1, 2, device=device, dtype=torch.bfloat16), torch.zeros(1, device=device).long())
    except Exception:  # no Triton, no C compiler, a card that it does not know
        return None
    return kernels if abs(float(nats) - 0.6931) < 1e-3 else None  # two logits that are alike


def cross_entropy_in_place(kernels: Kernels, logits_NV: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """The sum in nats, a scalar in float32. Afterwards `logits_NV` holds its gradient."""
    N, V = logits_NV.shape
    part = min(_LARGEST_ROW_PART, 1 << (V - 1).bit_length())
    nats_N = torch.empty(N, device=logits_NV.device, dtype=torch.float32)
    warps = 32 if part == _LARGEST_ROW_PART else 8
    kernels.cross_entropy[(N,)](logits_NV, logits_NV.stride(0), labels_N, nats_N, V, PART=part, num_warps=warps)
    return nats_N.sum()


def scaled(kernels: Kernels, numbers: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Times a number in float32 that the device knows, in place: torch's product of two formats takes four times as long."""
    kernels.scale[(-(-numbers.numel() // BLOCK),)](numbers, numbers.numel(), factor, SPAN=BLOCK, num_warps=8)
    return numbers


def _kernels() -> Kernels:
    import triton
    import triton.language as tl

    @triton.jit
    def cross_entropy(logits_NV, stride, labels_N, nats_N, V, PART: tl.constexpr):  # type: ignore[no-untyped-def]
        row = tl.program_id(0).to(tl.int64)
        logits_V = logits_NV + row * stride
        label = tl.load(labels_N + row)
        chosen = tl.load(logits_V + label).to(tl.float32)
        top = float("-inf")
        total = 0.0  # of exp(logit - top)
        for start in range(0, V, PART):
            at = start + tl.arange(0, PART)
            part = tl.load(logits_V + at, mask=at < V, other=float("-inf")).to(tl.float32)
            higher = tl.maximum(top, tl.max(part))
            total = total * tl.exp(top - higher) + tl.sum(tl.exp(part - higher))
            top = higher
        log_total = top + tl.log(total)
        tl.store(nats_N + row, log_total - chosen)
        for start in range(0, V, PART):
            at = start + tl.arange(0, PART)
            part = tl.load(logits_V + at, mask=at < V, other=float("-inf")).to(tl.float32)
            tl.store(logits_V + at, tl.exp(part - log_total).to(logits_NV.dtype.element_ty), mask=at < V)
        tl.debug_barrier()  # another thread may have written there just now
        tl.store(logits_V + label, (tl.exp(chosen - log_total) - 1.0).to(logits_NV.dtype.element_ty))

    @triton.jit
    def scale(numbers, count, factor, SPAN: tl.constexpr):  # type: ignore[no-untyped-def]
        at = tl.program_id(0).to(tl.int64) * SPAN + tl.arange(0, SPAN)
        scaled = tl.load(numbers + at, mask=at < count, other=0.0).to(tl.float32) * tl.load(factor)
        tl.store(numbers + at, scaled.to(numbers.dtype.element_ty), mask=at < count)

    @triton.jit
    def squares(table_5P, P, sizes_P, places_K2, sums_K, FORMAT: tl.constexpr, WIDE: tl.constexpr, SPAN: tl.constexpr):  # type: ignore[no-untyped-def]
        program = tl.program_id(0)
        which = tl.load(places_K2 + 2 * program)
        at = tl.load(places_K2 + 2 * program + 1).to(tl.int64) * SPAN + tl.arange(0, SPAN)
        size = tl.multiple_of(tl.load(sizes_P + which), WIDE)
        gradient_at = tl.multiple_of(tl.load(table_5P + P + which).to(tl.pointer_type(FORMAT)), 16)
        gradient = tl.load(gradient_at + at, mask=at < size, other=0.0).to(tl.float32)
        tl.store(sums_K + program, tl.sum(gradient * gradient))

    @triton.jit
    def adamw(  # type: ignore[no-untyped-def]
        table_5P,
        P,
        sizes_P,
        rates_P,
        places_K2,
        norm,
        most,
        decay,
        new1,
        kept2,
        new2,
        unbias1,
        root2,
        eps,
        FORMAT: tl.constexpr,
        WIDE: tl.constexpr,
        SPAN: tl.constexpr,
    ):
        program = tl.program_id(0)
        which = tl.load(places_K2 + 2 * program)
        at = tl.load(places_K2 + 2 * program + 1).to(tl.int64) * SPAN + tl.arange(0, SPAN)
        weight_at = tl.multiple_of(tl.load(table_5P + which).to(tl.pointer_type(FORMAT)), 16) + at
        gradient_at = tl.multiple_of(tl.load(table_5P + P + which).to(tl.pointer_type(FORMAT)), 16) + at
        master_at = tl.multiple_of(tl.load(table_5P + 2 * P + which).to(tl.pointer_type(tl.float32)), 16) + at
        first_at = tl.multiple_of(tl.load(table_5P + 3 * P + which).to(tl.pointer_type(tl.float32)), 16) + at
        second_at = tl.multiple_of(tl.load(table_5P + 4 * P + which).to(tl.pointer_type(tl.float32)), 16) + at
        length = tl.load(norm)
        here = (at < tl.multiple_of(tl.load(sizes_P + which), WIDE)) & (length < float("inf"))  # no number: no weight moves
        rate = tl.load(rates_P + which)
        gradient = tl.load(gradient_at, mask=here, other=0.0).to(tl.float32) * tl.minimum(most / (length + 1e-6), 1.0)
        first = tl.load(first_at, mask=here, other=0.0)
        first = first + (gradient - first) * new1
        second = tl.load(second_at, mask=here, other=0.0) * kept2 + gradient * gradient * new2
        master = tl.load(master_at, mask=here, other=0.0)
        master = master * (1.0 - rate * decay) - rate / unbias1 * first / (tl.sqrt(second) / root2 + eps)
        tl.store(first_at, first, mask=here)
        tl.store(second_at, second, mask=here)
        tl.store(master_at, master, mask=here)
        tl.store(weight_at, master.to(FORMAT), mask=here)

    formats = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}
    return Kernels(cross_entropy, scale, squares, adamw, formats)
