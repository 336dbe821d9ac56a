"""AdamW for parameters kept in bfloat16: the optimiser holds a float32 master of each, the model its rounded copy.

Small updates would be lost in bfloat16's 8 bits; matrix products want bfloat16. Both get what they need. For float32 parameters it is
torch's AdamW (on a GPU its fused form), bit for bit.

Source     AdamW: Loshchilov and Hutter 2017, arXiv:1711.05101; master weights: Micikevicius et al. 2017, arXiv:1710.03740, section 3.1;
           paged moments: Dettmers et al. 2023, arXiv:2305.14314, section 3
We differ  a parameter that got no gradient (an expert that no token chose) counts as having the gradient zero, where torch passes it
           over: its moments and its weight decay, and with them what a checkpoint holds, do not depend on the split into micro-batches
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

_STATE = ("step", "exp_avg", "exp_avg_sq")
_PAGED_STATE = ("step", "state1", "state2")  # the same, as bitsandbytes calls them


class MasterAdamW:
    def __init__(
        self,
        parameters: Iterable[tuple[str, torch.nn.Parameter]],
        *,
        learning_rate: float,
        weight_decay: float,
        betas: tuple[float, float],
        eps: float = 1e-8,
        rate_factors: Mapping[str, float] | None = None,
        paged: bool = False,
    ):
        """`rate_factors`: of the learning rate, what a parameter moves with; 1 for those that are not named.

        `paged`: on a GPU the moments may move to the machine's memory when the device's is full (bitsandbytes).
        """
        self._parameters = dict(parameters)
        self._masters = {name: p.detach().float().clone().requires_grad_() for name, p in self._parameters.items()}
        factors = {name: (rate_factors or {}).get(name, 1.0) for name in self._parameters}
        groups = [
            {"params": [master for name, master in self._masters.items() if factors[name] == factor], "factor": factor}
            for factor in dict.fromkeys(factors.values())
        ]
        self._paged = paged
        self._fused = not paged and all(master.is_cuda for master in self._masters.values())  # one pass over memory
        self._adamw: Any = _adamw(groups, paged=paged, fused=self._fused, lr=learning_rate, weight_decay=weight_decay, betas=betas, eps=eps)

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        return self._parameters

    def update(self, *, learning_rate: float, max_grad_norm: float) -> float:
        """Clip, step, copy back, clear. Returns the gradient norm before clipping; with one that is not a number no weight moves."""
        for name, parameter in self._parameters.items():
            master = self._masters[name]
            master.grad = torch.zeros_like(master) if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        norm = float(torch.nn.utils.clip_grad_norm_(self._masters.values(), max_grad_norm))
        if not math.isfinite(norm):
            for master in self._masters.values():
                master.grad = None
            return norm
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self._adamw.step()
        with torch.no_grad():
            torch._foreach_copy_(list(self._parameters.values()), list(self._masters.values()))  # on a GPU in few launches
        for master in self._masters.values():
            master.grad = None
        return norm

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that the next step depends on."""
        tensors = {f"master.{name}": master.detach() for name, master in self._masters.items()}
        for name, master in self._masters.items():
            state = self._adamw.state[master]
            for key, own in zip(_STATE, _PAGED_STATE if self._paged else _STATE, strict=True):
                tensors[f"{key}.{name}"] = torch.as_tensor(state[own], dtype=torch.float32)
        return tensors

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """`tensors` as `state` gave them after at least one update."""
        with torch.no_grad():
            for name, master in self._masters.items():
                master.copy_(tensors[f"master.{name}"])
                self._parameters[name].copy_(master)
                step, *moments = (tensors[f"{key}.{name}"].clone() for key in _STATE)
                if self._paged:
                    self._restore_paged(master, int(step), moments)
                    continue
                counted = step.to(master.device if self._fused else "cpu")  # where torch wants it
                moved = [counted, *(m.to(master.device) for m in moments)]
                self._adamw.state[master] = dict(zip(_STATE, moved, strict=True))

    def _restore_paged(self, master: torch.Tensor, step: int, moments: Sequence[torch.Tensor]) -> None:
        """Into the memory that bitsandbytes itself makes for them."""
        for g, group in enumerate(self._adamw.param_groups):
            for p, own in enumerate(group["params"]):
                if own is master:
                    self._adamw.init_state(group, master, g, p)
        state = self._adamw.state[master]
        state["step"] = step
        for key, moment in zip(_PAGED_STATE[1:], moments, strict=True):
            state[key].copy_(moment)


def _adamw(groups: list[dict[str, Any]], *, paged: bool, fused: bool, **settings: Any) -> Any:
    if not paged:
        return torch.optim.AdamW(groups, fused=fused or None, **settings)
    from bitsandbytes.optim import PagedAdamW

    return PagedAdamW(groups, optim_bits=32, **settings)
