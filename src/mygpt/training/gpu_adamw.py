"""MasterAdamW on a GPU: the norm in one pass over the gradients, all else in another, each one launch for all parameters.

The GPU is waited for once, when the update is on its way: where the norm is no number the kernel itself leaves every weight as it was.

Source     as `training/optimizers`; the kernels: `training/gpu_kernels`
We differ  clipping is inside the update; a float32 parameter ends within rounding of torch's, not on its bits
Dims       P parameters   K programs of a launch
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mygpt.training.gpu_kernels import BLOCK, gpu_kernels

_STATE = ("exp_avg", "exp_avg_sq")
_ALIGNED_BYTES = 16  # of an address, for wide reads
_WIDE = 16  # weights


@dataclass
class _Group:
    """Parameters of one number format, whose sizes `wide` divides."""

    format: Any
    wide: int
    names: list[str]
    rows_3P: list[list[int]]  # addresses: masters and the two moments
    sizes_P: torch.Tensor
    factors_P: torch.Tensor
    places_K2: torch.Tensor  # int32: which parameter, which block of it


class GpuAdamW:
    """As MasterAdamW, with the same state. `suits` says whether these parameters can be had."""

    def __init__(
        self,
        parameters: Iterable[tuple[str, torch.nn.Parameter]],
        *,
        learning_rate: float,
        weight_decay: float,
        betas: tuple[float, float],
        eps: float = 1e-8,
        rate_factors: Mapping[str, float] | None = None,
    ):
        self._parameters = dict(parameters)
        self._rate, self._decay, self._betas, self._eps = learning_rate, weight_decay, betas, eps
        self._device = next(iter(self._parameters.values())).device
        kernels = gpu_kernels(self._device)
        assert kernels is not None, "there are no kernels for this device"
        self._kernels = kernels
        self._masters = {name: p.detach().float().clone(memory_format=torch.contiguous_format) for name, p in self._parameters.items()}
        self._moments = {key: {name: torch.zeros_like(m) for name, m in self._masters.items()} for key in _STATE}
        self._num_done = 0
        self._norm = torch.zeros((), pin_memory=True)
        factors = rate_factors or {}
        alike: dict[tuple[torch.dtype, int], list[str]] = {}
        for name, p in self._parameters.items():
            alike.setdefault((p.dtype, 1 if p.numel() % _WIDE else _WIDE), []).append(name)
        self._groups = [self._group(*kind, names, [factors.get(name, 1.0) for name in names]) for kind, names in alike.items()]

    def _group(self, dtype: torch.dtype, wide: int, names: list[str], factors: list[float]) -> _Group:
        rows = [[tensors[name].data_ptr() for name in names] for tensors in (self._masters, *self._moments.values())]
        sizes = [self._parameters[name].numel() for name in names]
        counts = torch.tensor([-(-size // BLOCK) for size in sizes])
        first = counts.cumsum(0) - counts
        which = torch.repeat_interleave(torch.arange(len(names)), counts)
        places = torch.stack([which, torch.arange(len(which)) - first[which]], 1).int()
        sizes_P, factors_P = (torch.tensor(found, device=self._device) for found in (sizes, factors))
        return _Group(self._kernels.formats[dtype], wide, names, rows, sizes_P, factors_P.float(), places.contiguous().to(self._device))

    @staticmethod
    def suits(parameters: Iterable[torch.nn.Parameter]) -> bool:
        """Whether all are whole in one GPU's memory, in a format of the kernels."""
        found = list(parameters)
        kernels = gpu_kernels(found[0].device) if found and len({p.device for p in found}) == 1 else None
        if kernels is None:
            return False
        whole = all(type(p.data) is torch.Tensor and p.is_contiguous() and p.numel() for p in found)
        return whole and all(p.dtype in kernels.formats and p.data_ptr() % _ALIGNED_BYTES == 0 for p in found)

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        return self._parameters

    def update(self, *, learning_rate: float, max_grad_norm: float) -> float:
        """Clip, step, copy back, clear. Returns the gradient norm before clipping; with one that is not a number no weight moves."""
        gradients = {name: self._gradient(p) for name, p in self._parameters.items()}
        tables = [self._table(group, gradients) for group in self._groups]
        sums = []
        for group, table_5P in zip(self._groups, tables, strict=True):
            sums_K = torch.empty(len(group.places_K2), device=self._device)
            given: tuple[Any, ...] = (table_5P, len(group.names), group.sizes_P, group.places_K2, sums_K)
            self._kernels.squares[(len(sums_K),)](*given, FORMAT=group.format, WIDE=group.wide, SPAN=BLOCK, num_warps=8)
            sums.append(sums_K.sum())
        norm = torch.stack(sums).sum().sqrt()
        self._norm.copy_(norm, non_blocking=True)
        is_known = torch.cuda.Event()
        is_known.record()
        (beta1, beta2), step = self._betas, self._num_done + 1
        moments = (1 - beta1, beta2, 1 - beta2, 1 - beta1**step, math.sqrt(1 - beta2**step))
        for group, table_5P in zip(self._groups, tables, strict=True):
            numbers = (max_grad_norm, self._decay, *moments, self._eps)
            given = (table_5P, len(group.names), group.sizes_P, group.factors_P * learning_rate, group.places_K2, *(norm, *numbers))
            self._kernels.adamw[(len(group.places_K2),)](*given, FORMAT=group.format, WIDE=group.wide, SPAN=BLOCK, num_warps=8)
        for parameter in self._parameters.values():
            parameter.grad = None
        is_known.synchronize()  # the update itself is not waited for
        found = float(self._norm)
        self._num_done += math.isfinite(found)
        return found

    def _gradient(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.contiguous()
        return gradient if gradient.data_ptr() % _ALIGNED_BYTES == 0 else gradient.clone()

    def _table(self, group: _Group, gradients: Mapping[str, torch.Tensor]) -> torch.Tensor:
        found = [[tensors[name].data_ptr() for name in group.names] for tensors in (self._parameters, gradients)]
        rows = torch.tensor([*found, *group.rows_3P])
        return rows.pin_memory().to(self._device, non_blocking=True)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that the next step depends on."""
        tensors = {f"master.{name}": master for name, master in self._masters.items()}
        for name in self._masters:
            tensors[f"step.{name}"] = torch.tensor(float(self._num_done))
            tensors |= {f"{key}.{name}": moments[name] for key, moments in self._moments.items()}
        return tensors

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """`tensors` as `state` gave them after at least one update."""
        with torch.no_grad():
            for name, master in self._masters.items():
                self._num_done = int(tensors[f"step.{name}"])
                master.copy_(tensors[f"master.{name}"])
                self._parameters[name].copy_(master)
                for key, moments in self._moments.items():
                    moments[name].copy_(tensors[f"{key}.{name}"])
