"""REINFORCE: advantages worked by hand, the gradient of the score function, the baseline that a kill does not forget."""

from typing import Any

import pytest
import torch

from mygpt.align.reinforce import ReinforceConfig, advantages_of, reinforce, token_weights
from mygpt.align.rollouts import rollout
from mygpt.align.scored_rollouts import Scored
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer
from tests.align.rewarded import TINY, made_by, resumed_is_uninterrupted, weights_of

PROMPT = Conversation((Message("user", "?"),))
MADE = {i: rollout((1, 2), PROMPT, Answer("", token_ids=(3,) * n), is_finished=True) for i, n in enumerate((2, 1, 3))}
SCORED = Scored(MADE, torch.tensor([[1.0], [0.0], [2.0]]), 0)
KL = {0: torch.tensor([1.0, 1.0]), 1: torch.tensor([0.0]), 2: torch.tensor([2.0, 0.0, -1.0])}


def test_batch_mean() -> None:
    """Worth with the KL off: 1 - 0.1 * 2 = 0.8, 0, 2 - 0.1 = 1.9; their mean is 0.9."""
    found = advantages_of(SCORED, KL, ReinforceConfig(kl_coefficient=0.1), {})
    for row, (length, value) in enumerate([(2, -0.1), (1, -0.9), (3, 1.0)]):
        torch.testing.assert_close(found[row], torch.full((length,), value))
    assert token_weights([0, 1, 2], SCORED, ReinforceConfig()) == dict.fromkeys(range(3), 1 / 3)


def test_moving_mean() -> None:
    """The first rollout has nothing before it; then 0.9 is usual, and becomes 0.9 * 0.9 + 0.1 * 0.9."""
    config = ReinforceConfig.model_validate({"kl_coefficient": 0.1, "baseline": {"name": "moving"}})
    memory: dict[str, Any] = {"baseline": None}
    first = advantages_of(SCORED, KL, config, memory)
    assert float(first[2][0]) == pytest.approx(1.0) and memory["baseline"] == pytest.approx(0.9)
    better = Scored(MADE, SCORED.rewards_PG + 1, 0)
    second = advantages_of(better, KL, config, memory)
    assert float(second[2][0]) == pytest.approx(2.0) and memory["baseline"] == pytest.approx(1.0)


def test_whitened() -> None:
    """What is to come: (0.8, 0.9), (0), (1.9, 2.1, 2.1); mean 1.3, variance 3.74 / 5 of the six."""
    config = ReinforceConfig.model_validate({"kl_coefficient": 0.1, "baseline": {"name": "whitened"}})
    found = advantages_of(SCORED, KL, config, {})
    expected = (torch.tensor([0.8, 0.9, 0, 1.9, 2.1, 2.1]) - 1.3) / (3.74 / 5) ** 0.5
    torch.testing.assert_close(torch.cat([found[i] for i in range(3)]), expected)
    assert token_weights([0, 1, 2], SCORED, config) == dict.fromkeys(range(3), 1 / 6)


@pytest.mark.parametrize("baseline", ["batch", "whitened"])
def test_any_split_gives_the_same_adapter(baseline: str, run: Run) -> None:
    settings = {**TINY, "samples": 1, "prompts_per_rollout": 4, "baseline": {"name": baseline}}
    configs = (ReinforceConfig.model_validate({**settings, "micro_batch_tokens": n}) for n in (2048, 1))
    whole, parts = (weights_of(made_by(reinforce, config, run)) for config in configs)
    assert any(value.abs().max() > 0 for name, value in whole.items() if "lora_B" in name)
    torch.testing.assert_close(whole, parts, atol=2e-5, rtol=1e-3)


def test_one_answer_to_a_prompt_is_no_dead_reward(run: Run) -> None:
    """It is compared with answers to other prompts; only alone in its group it differs from nothing."""
    facts = made_by(reinforce, ReinforceConfig.model_validate({**TINY, "samples": 1, "prompts_per_rollout": 4}), run).manifest.facts
    assert facts["vitals"] and all("flat_share" not in row and row["grad_norm"] > 0 for row in facts["vitals"])


@pytest.mark.parametrize(("baseline", "passes"), [("moving", 1), ("whitened", 2)])
def test_killed_and_resumed_is_uninterrupted(baseline: str, passes: int, run: Run) -> None:
    config = ReinforceConfig.model_validate({**TINY, "prompts_per_rollout": 1, "baseline": {"name": baseline}, "passes": passes})
    resumed_is_uninterrupted(reinforce, config, run, killed_at=4, stopped_at=7)


@pytest.mark.slow
def test_reward_goes_up(run: Run) -> None:
    settings = {**TINY, "epochs": 24, "learning_rate": 0.03, "samples": 4, "max_answer_tokens": 8, "baseline": {"name": "whitened"}}
    rewards = [row["reward"] for row in made_by(reinforce, ReinforceConfig.model_validate(settings), run).manifest.facts["vitals"]]
    assert sum(rewards[-8:]) > sum(rewards[:8]) + 0.5, rewards
