"""AdamW in two launches, against torch's in float64."""

import math
from typing import Any

import pytest
import torch

from mygpt.training.gpu_adamw import GpuAdamW

SETTINGS: dict[str, Any] = {"learning_rate": 3e-3, "weight_decay": 0.1, "betas": (0.9, 0.999)}
SHAPES = {"matrix": (64, 96), "odd": (7, 5), "row": (48,), "many": (300, 257)}  # `odd` and `many` are no multiple of 16
ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def parameters(dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.nn.Parameter]:
    draw = torch.Generator().manual_seed(1)
    return {name: torch.nn.Parameter(torch.randn(shape, generator=draw).to("cuda", dtype)) for name, shape in SHAPES.items()}


def give_gradients(step: int, *groups: dict[str, torch.nn.Parameter]) -> None:
    draw = torch.Generator().manual_seed(100 + step)
    for name in groups[0]:
        gradient = torch.randn(groups[0][name].shape, generator=draw) * 10.0 ** (step % 4 - 4)
        for group in groups:
            group[name].grad = gradient.to(groups[0][name].dtype).to(group[name])


def test_a_cpu_has_another() -> None:
    assert not GpuAdamW.suits([torch.nn.Parameter(torch.zeros(16))])


@ON_A_GPU
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_equals_adamw_in_float64(dtype: torch.dtype) -> None:
    """Norms of 0.03 to 30, so that clipping at 1 is met and not met; a rate that changes; a parameter with a rate of its own."""
    ours = parameters(dtype)
    theirs = {name: torch.nn.Parameter(p.detach().double()) for name, p in ours.items()}
    assert GpuAdamW.suits(ours.values())
    optimizer = GpuAdamW(ours.items(), **SETTINGS, rate_factors={"row": 0.25})
    groups = [{"params": [p], "factor": 0.25 if name == "row" else 1.0} for name, p in theirs.items()]
    adamw = torch.optim.AdamW(groups, lr=3e-3, weight_decay=0.1, betas=(0.9, 0.999), eps=1e-8)
    norms = []
    for step in range(20):
        give_gradients(step, ours, theirs)
        norm = float(torch.nn.utils.clip_grad_norm_(theirs.values(), 1.0))
        for group in adamw.param_groups:
            group["lr"] = 3e-3 / (step + 1) * group["factor"]
        adamw.step()
        norms.append(optimizer.update(learning_rate=3e-3 / (step + 1), max_grad_norm=1.0))
        assert norms[-1] == pytest.approx(norm, rel=1e-5)
        assert all(p.grad is None for p in ours.values())
    assert min(norms) < 1 < max(norms)
    state = optimizer.state()
    for name, expected in theirs.items():
        moved = float((expected - parameters(dtype)[name].double()).detach().norm())
        apart = float((state[f"master.{name}"].double() - expected.detach()).norm())
        assert apart <= 3e-7 * float(expected.detach().norm()) < 2e-3 * moved, name  # 20 roundings to float32's 24 bits
        assert torch.equal(ours[name].detach(), state[f"master.{name}"].to(dtype)), name


@ON_A_GPU
def test_no_number_moves_no_weight() -> None:
    ours, without = parameters(), parameters()
    optimizer, other = GpuAdamW(ours.items(), **SETTINGS), GpuAdamW(without.items(), **SETTINGS)
    for step in range(4):
        if step == 2:
            give_gradients(step, ours)
            ours["row"].grad[3] = math.nan
            assert not math.isfinite(optimizer.update(learning_rate=3e-3, max_grad_norm=1.0))
        give_gradients(step, ours, without)
        for one in (optimizer, other):
            one.update(learning_rate=3e-3, max_grad_norm=1.0)
    assert all(torch.equal(ours[name], without[name]) for name in ours)


@ON_A_GPU
def test_restored_goes_on_bit_for_bit() -> None:
    """From the memory of the machine, where a checkpoint is read into. A parameter without a gradient counts as one of zero."""
    ours, again = parameters(), parameters()
    first, second = GpuAdamW(ours.items(), **SETTINGS), GpuAdamW(again.items(), **SETTINGS)
    for step in range(6):
        if step == 3:
            second.restore({name: tensor.cpu() for name, tensor in first.state().items()})
        for own, optimizer in ((ours, first), (again, second))[: 1 if step < 3 else 2]:
            give_gradients(step, own)
            own["odd"].grad = None
            optimizer.update(learning_rate=3e-3, max_grad_norm=1.0)
    assert all(torch.equal(ours[name], again[name]) for name in ours)
    assert all(torch.equal(tensor.cpu(), second.state()[name].cpu()) for name, tensor in first.state().items())
