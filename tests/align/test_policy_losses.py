"""The clipped losses by hand, on either side of every bound, and where their gradients end."""

import math

import pytest
import torch

from mygpt.align.policy_losses import approx_kl, clipped_surrogate, clipped_value_losses

BOUNDS = {"clip_low": 0.2, "clip_high": 0.3}


def surrogate(ratio: float, advantage: float, **more: float) -> tuple[float, bool, float]:
    """(loss, whether clipped, gradient for the log-probability) of one token."""
    logprob = torch.tensor([math.log(ratio) - 1], dtype=torch.float64, requires_grad=True)
    old, advantages = torch.tensor([-1.0], dtype=torch.float64), torch.tensor([advantage], dtype=torch.float64)
    made = clipped_surrogate(logprob, old, advantages, **BOUNDS, **more)
    (gradient,) = torch.autograd.grad(made.losses.sum(), logprob)
    assert float(made.ratios) == pytest.approx(ratio)
    return float(made.losses), bool(made.is_clipped), float(gradient)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, False),
        (1.2, 2.0, -2.4, False),
        (1.5, 2.0, -2.6, True),  # no more than 1 + .3 for what was good
        (0.5, 2.0, -1.0, False),
        (0.5, -2.0, 1.6, True),  # no less than 1 - .2 for what was bad
        (1.5, -2.0, 3.0, False),
    ],
)
def test_clipped(ratio: float, advantage: float, loss: float, clipped: bool) -> None:
    found, was_clipped, gradient = surrogate(ratio, advantage)
    assert (found, was_clipped) == (pytest.approx(loss), clipped)
    assert gradient == pytest.approx(0.0 if clipped else -advantage * ratio)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"), [(5.0, -2.0, 6.0, True), (2.0, -2.0, 4.0, False), (5.0, 2.0, -2.6, True)]
)
def test_dual_clip(ratio: float, advantage: float, loss: float, clipped: bool) -> None:
    """c = 3: a bad token that became likely costs at most three times its advantage, and then moves nothing."""
    found, was_clipped, gradient = surrogate(ratio, advantage, dual_clip=3.0)
    assert (found, was_clipped) == (pytest.approx(loss), clipped)
    assert gradient == pytest.approx(0.0 if clipped else -advantage * ratio)


def test_one_impossible_token_is_no_infinity() -> None:
    made = clipped_surrogate(torch.tensor([0.0]), torch.tensor([-900.0]), torch.tensor([-1.0]), **BOUNDS)
    assert torch.isfinite(made.losses).all()


def test_approx_kl() -> None:
    assert approx_kl(torch.tensor([-1.0, -2.0]), torch.tensor([-1.2, -1.6])).tolist() == pytest.approx([0.02, 0.08])


@pytest.mark.parametrize(
    ("value", "target", "loss", "clipped"),
    [
        (1.1, 2.0, 0.405, False),  # within .2 of the old value 1: (1.1 - 2)^2 / 2
        (1.5, 2.0, 0.32, True),  # nearer than it may get at once: (1.2 - 2)^2 / 2
        (0.5, 2.0, 1.125, False),  # further away: the plain one is the greater
        (0.0, -1.0, 1.62, True),  # (.8 + 1)^2 / 2
    ],
)
def test_clipped_value_loss(value: float, target: float, loss: float, clipped: bool) -> None:
    values = torch.tensor([value], requires_grad=True)
    made = clipped_value_losses(values, torch.tensor([1.0]), torch.tensor([target]), clip=0.2)
    assert (float(made.losses), bool(made.is_clipped)) == (pytest.approx(loss), clipped)
    (gradient,) = torch.autograd.grad(made.losses.sum(), values)
    assert float(gradient) == pytest.approx(0.0 if clipped else value - target)
    plain = clipped_value_losses(values, torch.tensor([1.0]), torch.tensor([target]), clip=None)
    assert float(plain.losses) == pytest.approx((value - target) ** 2 / 2) and not plain.is_clipped.any()
