"""RLOO: trl's own loss on the same tensors, the KL in the reward, and exact resumption."""

import pytest
import torch

from mygpt.align.policy_losses import clipped_surrogate
from mygpt.align.rewards import NamedReward
from mygpt.align.rloo import RLOOConfig, less_kl, rloo
from mygpt.core.run import Run
from tests.align.rewarded import TINY, TRL, Fixed, made_by, resumed_is_uninterrupted, weights_of


def test_loss_is_trls() -> None:
    """Loss and gradient of trl 1.16 on six answers of 1 to 7 tokens: the ratio is that of whole answers."""
    (form,) = (f for f in TRL["losses"] if f["loss_type"] == "rloo")
    fixed = Fixed()
    new_B, old_B = ((part * fixed.is_answer_BL).sum(1) for part in (fixed.new_BL, fixed.old_BL))
    loss = clipped_surrogate(new_B, old_B, fixed.advantages_B, clip_low=form["low"], clip_high=form["high"]).losses.sum() / 6
    loss.backward()
    assert loss.item() == pytest.approx(form["loss"], abs=1e-6)
    torch.testing.assert_close(fixed.new_BL.grad, torch.tensor(form["gradient"], dtype=torch.float64), atol=1e-6, rtol=1e-5)


def test_killed_and_resumed_is_uninterrupted(run: Run) -> None:
    resumed_is_uninterrupted(rloo, RLOOConfig(**TINY, passes=2), run, killed_at=4, stopped_at=7)


def test_any_split_gives_the_same_adapter(run: Run) -> None:
    whole, parts = (weights_of(made_by(rloo, RLOOConfig(**{**TINY, "epochs": 1}, micro_batch_tokens=n), run)) for n in (2048, 1))
    torch.testing.assert_close(whole, parts, atol=2e-5, rtol=1e-3)


def test_the_kl_is_part_of_the_reward() -> None:
    """Rewards 1 and 2; the answers' tokens gained 0.5 + 1 and -0.25 nats on the reference: 1 - 0.1 * 1.5 and 2 + 0.1 * 0.25."""
    policy = {7: torch.tensor([-1.0, -2.0]), 8: torch.tensor([-1.25])}
    reference = {7: torch.tensor([-1.5, -3.0]), 8: torch.tensor([-1.0])}
    found = less_kl(torch.tensor([[1.0, 2.0]]), policy, reference, coefficient=0.1)
    torch.testing.assert_close(found, torch.tensor([[0.85, 2.025]]))


def test_at_first_there_is_no_kl(run: Run) -> None:
    """Every answer is worth the same and the policy is its reference: both forward passes agree to the bit, and nothing moves."""
    alike = NamedReward("alike", lambda prompt, answer: 1.0)
    made = made_by(rloo, RLOOConfig(**TINY, kl_coefficient=5.0), run, reward=alike)
    assert all(value.abs().max() == 0 for name, value in weights_of(made).items() if "lora_B" in name)
    assert made.manifest.facts["vitals"][-1]["kl"] == 0 and made.manifest.facts["vitals"][-1]["kl_coefficient"] == 5
