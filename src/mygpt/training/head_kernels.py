"""Cross-entropy behind a plain vocabulary matrix on a GPU, its logits in half precision only and their gradient in the logits' own place.

torch keeps three copies in float32 for each in bfloat16, and passes over them nine times: 20 ms of a step's 250 on an H200, at 12,000
labels of a vocabulary of 128,256 (1.2B parameters).

Source     fused linear cross-entropy: Hsu et al. 2024, arXiv:2410.10989, section 3.2
We differ  labels are many at once (an eighth of the free memory), so that the matrix products are large ones; of several parts the
           matrix' gradient is summed in float32
Dims       N labels   D hidden   V vocabulary
"""

from typing import Any

import torch

from mygpt.lm.logits import only_matrix
from mygpt.training.gpu_kernels import Kernels, cross_entropy_in_place, gpu_kernels, scaled

_CHUNKS_AT_ONCE = 4  # of `chunk_labels_for`, which counts 16 bytes a logit: here it takes 2, and 2 more while they are multiplied


def in_kernels(module: Any, hidden_ND: torch.Tensor) -> torch.nn.Parameter | None:
    """The vocabulary's matrix where this is possible and gradients are asked for."""
    half = hidden_ND.dtype in (torch.bfloat16, torch.float16)
    if not (hidden_ND.is_cuda and half and len(hidden_ND) and torch.is_grad_enabled()) or gpu_kernels(hidden_ND.device) is None:
        return None
    weight_VD = only_matrix(module)
    return weight_VD if weight_VD is not None and weight_VD.dtype == hidden_ND.dtype else None


def summed_in_kernels(
    hidden_ND: torch.Tensor, weight_VD: torch.Tensor, labels_N: torch.Tensor, *, chunk_labels: int | None = None
) -> torch.Tensor:
    """A scalar in nats."""
    kernels = gpu_kernels(hidden_ND.device)
    total: torch.Tensor = _InKernels.apply(kernels, hidden_ND, weight_VD, labels_N, chunk_labels)  # type: ignore[no-untyped-call]
    return total


class _InKernels(torch.autograd.Function):
    """All gradients are made in the forward pass, up to one factor that backward brings."""

    @staticmethod
    def forward(
        ctx: Any, kernels: Kernels, hidden_ND: torch.Tensor, weight_VD: torch.Tensor, labels_N: torch.Tensor, chunk_labels: int | None
    ) -> torch.Tensor:
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        gradient_ND = torch.empty_like(hidden_ND) if ctx.needs_input_grad[1] else None
        parts = range(0, len(labels_N), _CHUNKS_AT_ONCE * chunk_labels if chunk_labels else len(labels_N))
        sum_VD: torch.Tensor | None = None
        for start in parts:
            own = slice(start, start + parts.step)
            logits_NV = hidden_ND[own] @ weight_VD.T
            total += cross_entropy_in_place(kernels, logits_NV, labels_N[own])  # which are their gradient from here on
            if gradient_ND is not None:
                torch.mm(logits_NV, weight_VD, out=gradient_ND[own])
            if ctx.needs_input_grad[2]:
                part_VD = logits_NV.T @ hidden_ND[own]
                sum_VD = part_VD if len(parts) == 1 else part_VD.float() if sum_VD is None else sum_VD.add_(part_VD)
            del logits_NV
        ctx.kernels, ctx.gradients = kernels, [None if g is None else g.to(hidden_ND.dtype) for g in (gradient_ND, sum_VD)]
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, factor: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Once: the gradients themselves are changed."""
        gradients, ctx.gradients = ctx.gradients, None
        return None, *(None if g is None else scaled(ctx.kernels, g, factor) for g in gradients), None, None
