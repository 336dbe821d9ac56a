"""RLOO: trl's own loss on the same tensors, the KL in the reward, and exact resumption."""

import math

import pytest
import torch

from mygpt.align.grpo import GRPOConfig, grpo
from mygpt.align.policy_losses import clipped_surrogate
from mygpt.align.rewards import NamedReward
from mygpt.align.rloo import RLOOConfig, less_kl, rloo
from mygpt.align.scored_rollouts import Watched
from mygpt.align.watch import WatchConfig
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


def test_what_is_watched_is_of_tokens_and_the_clipping_of_answers() -> None:
    """Ratios of tokens 1.5, 1.5, 0.5 and 0.9: those of the answers, 2.25 and 0.45, are both beyond 1 +- 0.2. With advantages 1 and 1 only
    the first is clipped."""
    new_N, old_N = torch.tensor([1.5, 1.5, 0.5, 0.9]).log(), torch.zeros(4)
    new_B = torch.stack([new_N[:2].sum(), new_N[2:].sum()])
    surrogate = clipped_surrogate(new_B, torch.zeros(2), torch.ones(2), clip_low=0.2, clip_high=0.2)
    watched = Watched(whole_answers=True)
    watched.add(surrogate, new_N, old_N)
    assert (watched.num_tokens, watched.num_ratios, watched.num_clipped) == (4, 2, 1)
    assert watched.ratio_max == pytest.approx(1.5)
    assert watched.approx_kl / 4 == pytest.approx(sum(math.log(r) ** 2 for r in (1.5, 1.5, 0.5, 0.9)) / 8)


def test_several_passes_are_no_fault(run: Run) -> None:
    """Twelve rollouts of three passes: half of the answers are clipped, and each token moves as little as in GRPO at equal settings."""
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event["text"]) if event["event"] == "warning" else None)
    settings = {**TINY, "epochs": 6, "passes": 3, "learning_rate": 3e-3, "max_answer_tokens": 24, "samples": 8}
    settings["watch"] = WatchConfig(doctor={"answers_end": False})
    parts = ((rloo, RLOOConfig(**settings)), (grpo, GRPOConfig(**settings)))
    of_answers, of_tokens = (made_by(*part, run).manifest.facts["vitals"] for part in parts)
    assert len(of_answers) == 12 and not [text for text in said if "since rollout" in text]
    first, other = of_answers[0], of_tokens[0]  # the same answers
    assert first["length"] == other["length"] and first["answer_clip_share"] > 0.3 and "clip_share" not in first
    assert other["approx_kl"] / 2 < first["approx_kl"] < 2 * other["approx_kl"] and first["ratio_max"] < 2 * other["ratio_max"]


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
