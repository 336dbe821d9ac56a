"""AdamW for parameters kept in bfloat16: the optimiser holds a float32 master of each, the model its rounded copy.

Small updates would be lost in bfloat16's 8 bits; matrix products want bfloat16. Both get what they need. For float32 parameters it is
torch's AdamW, bit for bit.

Source     AdamW: Loshchilov and Hutter 2017, arXiv:1711.05101; master weights: Micikevicius et al. 2017, arXiv:1710.03740, section 3.1
We differ  a parameter that got no gradient (an expert that no token chose) counts as having the gradient zero, where torch passes it
           over: its moments and its weight decay, and with them what a checkpoint holds, do not depend on the split into micro-batches
"""

from collections.abc import Iterable, Mapping

import torch

_STATE = ("step", "exp_avg", "exp_avg_sq")


class MasterAdamW:
    def __init__(
        self,
        parameters: Iterable[tuple[str, torch.nn.Parameter]],
        *,
        learning_rate: float,
        weight_decay: float,
        betas: tuple[float, float],
        rate_factors: Mapping[str, float] | None = None,
    ):
        """`rate_factors`: of the learning rate, what a parameter moves with; 1 for those that are not named."""
        self._parameters = dict(parameters)
        self._masters = {name: p.detach().float().clone().requires_grad_() for name, p in self._parameters.items()}
        factors = {name: (rate_factors or {}).get(name, 1.0) for name in self._parameters}
        groups = [
            {"params": [master for name, master in self._masters.items() if factors[name] == factor], "factor": factor}
            for factor in dict.fromkeys(factors.values())
        ]
        self._adamw = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay, betas=betas, eps=1e-8)

    def update(self, *, learning_rate: float, max_grad_norm: float) -> float:
        """Clip, step, copy back, clear. Returns the gradient norm before clipping."""
        for name, parameter in self._parameters.items():
            master = self._masters[name]
            master.grad = torch.zeros_like(master) if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        norm = torch.nn.utils.clip_grad_norm_(self._masters.values(), max_grad_norm)
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self._adamw.step()
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(self._masters[name])
                self._masters[name].grad = None
        return float(norm)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that the next step depends on."""
        tensors = {f"master.{name}": master.detach() for name, master in self._masters.items()}
        for name, master in self._masters.items():
            for key, value in self._adamw.state[master].items():
                tensors[f"{key}.{name}"] = value
        return tensors

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """`tensors` as `state` gave them after at least one update."""
        with torch.no_grad():
            for name, master in self._masters.items():
                master.copy_(tensors[f"master.{name}"])
                self._parameters[name].copy_(master)
                step, *moments = (tensors[f"{key}.{name}"].clone() for key in _STATE)
                moved = [step, *(m.to(master.device) for m in moments)]  # torch wants the step count on the CPU
                self._adamw.state[master] = dict(zip(_STATE, moved, strict=True))
