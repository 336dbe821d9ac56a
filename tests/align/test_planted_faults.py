"""Wrong settings and wrong rewards in the recipes themselves, on a base of a few thousand weights: the doctor names what was planted."""

from typing import Any

import pytest

from mygpt.align.doctor import TITLES
from mygpt.align.faults import Fault
from mygpt.align.grpo import GRPOConfig, grpo
from mygpt.align.kl import FixedKL
from mygpt.align.ppo import PPOConfig, ppo
from mygpt.align.rewards import NamedReward
from mygpt.align.watch import WatchConfig
from mygpt.core.run import Run
from tests.align.rewarded import LETTERS, TINY, again, made_by
from tests.align.test_ppo import FAST

OTHERS = NamedReward("no letters", lambda prompt, answer: sum(not c.isalpha() for c in answer.text) / 10)  # falls where letters are learnt
SHARED: dict[str, Any] = {"max_answer_tokens": 8, "checkpoint_seconds": 1e9, "watch": WatchConfig(doctor={"answers_end": False})}
PPO: dict[str, Any] = {**FAST, **SHARED, "rollouts": 40, "answers": 32, "kl": FixedKL(coefficient=0.0), "learning_rate": 5e-3}
GRPO: dict[str, Any] = {**TINY, **SHARED, "samples": 8, "epochs": 20, "warmup_share": 0.0, "learning_rate": 0.01}  # 40 rollouts

# what was planted, and what such a training has beside it: nothing holds it near the base, whose KL and entropy go the same way
PLANTED: list[tuple[Fault, set[Fault], Any, Any, dict[str, Any]]] = [
    ("reward_hacking", {"kl_blow_up", "collapse", "dead_value"}, ppo, PPOConfig(**PPO), {"held_out_reward": OTHERS}),
    ("reward_hacking", {"kl_blow_up", "collapse", "dead_reward"}, grpo, GRPOConfig(**GRPO), {"held_out_reward": OTHERS}),
    (
        "kl_blow_up",
        {"steps_too_large", "dead_value", "collapse"},
        ppo,
        PPOConfig(**{**PPO, "learning_rate": 0.1, "max_answer_tokens": 16, "rollouts": 16}),
        {},
    ),
    ("collapse", {"kl_blow_up", "dead_reward"}, grpo, GRPOConfig(**{**GRPO, "learning_rate": 0.2, "max_answer_tokens": 16}), {}),
]


def named(recipe: Any, config: Any, run: Run, more: dict[str, Any]) -> set[Fault]:
    """What the run was warned of."""
    said: list[str] = []
    with again(run, a=lambda event: said.append(event["text"]) if event["event"] == "warning" else None) as listening:
        made_by(recipe, config, listening, **more)
    return {fault for fault, title in TITLES.items() if any(text.startswith(f"{title} since rollout ") for text in said)}


@pytest.mark.parametrize(
    ("fault", "beside", "recipe", "config", "more"), PLANTED, ids=[f"{recipe.__name__} {fault}" for fault, _, recipe, *_ in PLANTED]
)
def test_it_names_what_was_planted(fault: Fault, beside: set[Fault], recipe: Any, config: Any, more: dict[str, Any], run: Run) -> None:
    found = named(recipe, config, run, more)
    assert fault in found and found <= {fault, *beside}


def test_nothing_is_said_where_nothing_was_planted(run: Run) -> None:
    """As the hacked GRPO, with a tenth of its rate, and a held-out reward that likes the same."""
    assert named(grpo, GRPOConfig(**{**GRPO, "learning_rate": 1e-3}), run, {"held_out_reward": LETTERS}) == set()
