"""RLOO: trl's own loss on the same tensors, the KL in the reward, and exact resumption."""

from typing import Any

import pytest
import torch

from mygpt.align.policy_losses import clipped_surrogate
from mygpt.align.rewards import NamedReward
from mygpt.align.rloo import RLOOConfig, rloo
from mygpt.core.run import Run
from tests.align.rewarded import TINY, TRL, Fixed, made_by, resumed_is_uninterrupted, weights_of


def test_loss_is_trls() -> None:
    """Loss and gradient of trl 1.16 on six answers of 1 to 7 tokens: the ratio is that of whole answers."""
    (form,) = (f for f in TRL["losses"] if f["loss_type"] == "rloo")
    fixed = Fixed()
    new_B, old_B = ((part * fixed.is_answer_BL).sum(1) for part in (fixed.new_BL, fixed.old_BL))
    loss = clipped_surrogate(new_B, old_B, fixed.advantages_B, clip_low=form["low"], clip_high=form["high"]).losses.sum() / 6
    loss.backward()
    assert float(loss) == pytest.approx(form["loss"], abs=1e-6)
    torch.testing.assert_close(fixed.new_BL.grad, torch.tensor(form["gradient"], dtype=torch.float64), atol=1e-6, rtol=1e-5)


def test_killed_and_resumed_is_uninterrupted(run: Run) -> None:
    resumed_is_uninterrupted(rloo, RLOOConfig(**TINY, passes=2), run, killed_at=4, stopped_at=7)


def test_any_split_gives_the_same_adapter(run: Run) -> None:
    whole, parts = (weights_of(made_by(rloo, RLOOConfig(**TINY, micro_batch_tokens=n), run)) for n in (2048, 1))
    torch.testing.assert_close(whole, parts, atol=2e-5, rtol=1e-3)


def test_the_kl_is_part_of_the_reward(run: Run) -> None:
    """Where every answer is worth the same, only its KL moves the policy: not at all at first, when there is none."""
    alike = NamedReward("alike", lambda prompt, answer: 1.0)
    settings: dict[str, Any] = {**TINY, "learning_rate": 0.03, "epochs": 6, "samples": 6, "max_answer_tokens": 8}
    same = made_by(rloo, RLOOConfig(**settings), run, reward=alike)
    assert all(value.abs().max() == 0 for name, value in weights_of(same).items() if "lora_B" in name)

    free, held = (made_by(rloo, RLOOConfig(**settings, kl_coefficient=c), run).manifest.facts["vitals"] for c in (0.0, 5.0))
    assert held[-1]["kl_coefficient"] == 5 and "kl_coefficient" not in free[-1]
    late_free, late_held = (sum(row["kl"] for row in vitals[-4:]) / 4 for vitals in (free, held))
    assert late_held < 0.5 * late_free
