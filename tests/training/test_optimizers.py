"""MasterAdamW against torch's AdamW, and the small updates that bfloat16 would lose."""

import warnings
from typing import Any

import pytest
import torch

from mygpt.training.optimizers import MasterAdamW

SETTINGS: dict[str, Any] = {"learning_rate": 3e-3, "weight_decay": 0.1, "betas": (0.9, 0.999)}


def parameters(dtype: torch.dtype = torch.float32) -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for name, shape in (("a", (7, 5)), ("b", (5,)))}


def give_gradients(step: int, *groups: dict[str, torch.nn.Parameter]) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for name in groups[0]:
        gradient = torch.randn(groups[0][name].shape, generator=generator) * 10 ** (step % 4 - 2)
        for group in groups:
            group[name].grad = gradient.to(group[name].dtype, copy=True)


def test_equals_torch_adamw_bit_for_bit() -> None:
    """Norms from 0.06 to 60 a step, so that clipping at 1 is met and not met; a rate that changes each step."""
    ours, theirs = parameters(), parameters()
    optimizer = MasterAdamW(ours.items(), **SETTINGS)
    adamw = torch.optim.AdamW(theirs.values(), lr=3e-3, weight_decay=0.1, betas=(0.9, 0.999), eps=1e-8)
    norms = []
    for step in range(20):
        give_gradients(step, ours, theirs)
        norm = float(torch.nn.utils.clip_grad_norm_(theirs.values(), 1.0))
        for group in adamw.param_groups:
            group["lr"] = 3e-3 / (step + 1)
        adamw.step()
        norms.append(optimizer.update(learning_rate=3e-3 / (step + 1), max_grad_norm=1.0))
        assert norms[-1] == norm
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert all(p.grad is None for p in ours.values())
    assert min(norms) < 1 < max(norms)


def test_a_large_epsilon_is_torchs() -> None:
    """1e-2, beside second moments of 1e-4 to 1e2: with the usual 1e-8 the weights end elsewhere."""
    ours, theirs, usual = parameters(), parameters(), parameters()
    optimizer, other = MasterAdamW(ours.items(), **SETTINGS, eps=1e-2), MasterAdamW(usual.items(), **SETTINGS)
    adamw = torch.optim.AdamW(theirs.values(), lr=3e-3, weight_decay=0.1, betas=(0.9, 0.999), eps=1e-2)
    for step in range(5):
        give_gradients(step, ours, theirs, usual)
        adamw.step()
        for one in (optimizer, other):
            one.update(learning_rate=3e-3, max_grad_norm=1e9)
    assert all(torch.equal(ours[name], theirs[name]) and not torch.equal(ours[name], usual[name]) for name in ours)


def test_small_updates_add_up_in_bfloat16() -> None:
    """A constant gradient moves AdamW by the rate each step: 10 steps of 0.001 from 1.0 give 0.990, and the nearest bfloat16 (8 bits
    below 1: multiples of 1/256) is 253/256. By itself bfloat16 rounds 0.999 back to 1 every time."""
    plain = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    kept = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    adamw = torch.optim.AdamW([plain], lr=1e-3, weight_decay=0.0)
    optimizer = MasterAdamW([("kept", kept)], learning_rate=1e-3, weight_decay=0.0, betas=(0.9, 0.999))
    for _ in range(10):
        plain.grad, kept.grad = torch.full_like(plain, 0.5), torch.full_like(kept, 0.5)
        adamw.step()
        optimizer.update(learning_rate=1e-3, max_grad_norm=100.0)
    assert plain.tolist() == [1.0, 1.0, 1.0]
    assert kept.tolist() == [253 / 256] * 3
    assert optimizer.state()["master.kept"].tolist() == pytest.approx([0.990] * 3, abs=1e-6)
    assert kept.dtype == torch.bfloat16


def test_no_gradient_counts_as_zero() -> None:
    """Its weight decays like any other's: 2.0 x (1 - 0.003 x 0.1) after one step, and a checkpoint holds it."""
    used, unused = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.full((2,), 2.0))
    optimizer = MasterAdamW([("used", used), ("unused", unused)], **SETTINGS)
    used.grad = torch.ones(2)
    norm = optimizer.update(learning_rate=3e-3, max_grad_norm=10.0)
    assert norm == pytest.approx(2**0.5)
    assert unused.tolist() == pytest.approx([2.0 * (1 - 0.003 * 0.1)] * 2, rel=1e-7)
    assert set(optimizer.state()) == {f"{key}.{name}" for key in ("master", "step", "exp_avg", "exp_avg_sq") for name in ("used", "unused")}
    unused.grad = torch.ones(2)
    assert optimizer.update(learning_rate=3e-3, max_grad_norm=10.0) == pytest.approx(2**0.5)  # nothing of the first step is left over


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_restored_goes_on_bit_for_bit(dtype: torch.dtype) -> None:
    through, before, after = parameters(dtype), parameters(dtype), parameters(dtype)
    whole, first, second = (MasterAdamW(p.items(), **SETTINGS) for p in (through, before, after))
    for step in range(5):
        give_gradients(step, through, before)
        whole.update(learning_rate=3e-3, max_grad_norm=1.0)
        first.update(learning_rate=3e-3, max_grad_norm=1.0)
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    assert all(torch.equal(after[name], before[name]) for name in after)
    for step in range(5, 10):
        give_gradients(step, through, after)
        whole.update(learning_rate=3e-3, max_grad_norm=1.0)
        second.update(learning_rate=3e-3, max_grad_norm=1.0)
    assert all(torch.equal(through[name], after[name]) for name in after)
    assert all(torch.equal(tensor, second.state()[name]) for name, tensor in whole.state().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_restored_on_a_gpu_from_what_was_kept_on_a_cpu() -> None:
    """A checkpoint is read into the machine's memory; the fused AdamW wants all of it, the step count too, on the device."""
    ours = {name: torch.nn.Parameter(p.detach().cuda()) for name, p in parameters().items()}
    again = {name: torch.nn.Parameter(p.detach().cuda()) for name, p in parameters().items()}
    first, second = (MasterAdamW(p.items(), **SETTINGS) for p in (ours, again))
    for step in range(6):
        if step == 3:
            second.restore({name: tensor.cpu() for name, tensor in first.state().items()})
        for own, optimizer in ((ours, first), (again, second))[: 1 if step < 3 else 2]:
            for name, parameter in own.items():
                parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step + len(name))).cuda()
            optimizer.update(learning_rate=3e-3, max_grad_norm=1.0)
    assert all(torch.equal(ours[name], again[name]) for name in ours)


def test_a_rate_of_its_own() -> None:
    """AdamW's first step is the learning rate, whatever the gradient: 0.1, and with a factor of 0.25 a quarter of it."""
    parameters = {name: torch.nn.Parameter(torch.zeros(2)) for name in ("whole", "quarter", "still whole")}
    optimizer = MasterAdamW(
        parameters.items(), learning_rate=1.0, weight_decay=0.0, betas=(0.9, 0.999), rate_factors={"quarter": 0.25}
    )
    for parameter in parameters.values():
        parameter.grad = torch.tensor([3.0, -2.0])
    optimizer.update(learning_rate=0.1, max_grad_norm=100.0)
    moved = {name: [round(x, 5) for x in p.tolist()] for name, p in parameters.items()}
    assert moved == {"whole": [-0.1, 0.1], "quarter": [-0.025, 0.025], "still whole": [-0.1, 0.1]}
    assert [name.partition(".")[2] for name in optimizer.state() if name.startswith("master.")] == list(parameters)


def test_paged_is_adamw() -> None:
    """bitsandbytes' own, whose pages exist on a GPU only: the same weights as torch's, and it goes on from what it saved."""

    def moved(num_steps: int, optimizer: MasterAdamW, parameter: torch.nn.Parameter, first: int = 0) -> torch.Tensor:
        for step in range(first, num_steps):
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
            optimizer.update(learning_rate=0.01, max_grad_norm=1.0)
        return parameter.detach().clone()

    def made(paged: bool) -> tuple[MasterAdamW, torch.nn.Parameter]:
        parameter = torch.nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4))
        return MasterAdamW({"w": parameter}.items(), learning_rate=0.01, weight_decay=0.1, betas=(0.9, 0.999), paged=paged), parameter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there are no pages here
        whole = moved(6, *made(True))
        assert torch.allclose(whole, moved(6, *made(False)), atol=1e-6)
        optimizer, parameter = made(True)
        moved(3, optimizer, parameter)
        again, fresh = made(True)
        again.restore({name: tensor.clone() for name, tensor in optimizer.state().items()})
        assert torch.equal(moved(6, again, fresh, first=3), whole)
