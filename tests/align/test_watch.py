"""What stands around every training with rollouts: another reward, wins against the start, and a doctor that can end it."""

from statistics import fmean
from typing import Any

import pytest

from mygpt.align.grpo import GRPOConfig, grpo
from mygpt.align.ppo import PPOConfig, ppo
from mygpt.align.reinforce import ReinforceConfig, reinforce
from mygpt.align.reward_ensemble import RewardEnsemble
from mygpt.align.rewards import NamedReward
from mygpt.align.rloo import RLOOConfig, rloo
from mygpt.align.watch import WatchConfig, win_rate
from mygpt.core.errors import MygptError
from mygpt.core.run import Run
from tests.align.rewarded import LETTERS, TINY, again, made_by
from tests.align.test_ppo import FAST

SHORT = NamedReward("short", lambda prompt, answer: -float(len(answer.token_ids)))
DULL = NamedReward("dull", lambda prompt, answer: 1.0)
WATCH = WatchConfig(prompts=3, every=2, max_tokens=6)
EVERY_METHOD: list[tuple[Any, Any]] = [
    (ppo, PPOConfig(**{**FAST, "rollouts": 4, "watch": WATCH})),
    (grpo, GRPOConfig(**TINY, watch=WATCH)),
    (rloo, RLOOConfig(**TINY, watch=WATCH)),
    (reinforce, ReinforceConfig(**TINY, watch=WATCH)),
]


def test_win_rate_by_hand() -> None:
    assert win_rate([1.0, 2.0, 0.0, 5.0], [0.0, 2.0, 1.0, 4.0]) == (1 + 0.5 + 0 + 1) / 4


@pytest.mark.parametrize(("recipe", "config"), EVERY_METHOD, ids=lambda one: getattr(one, "__name__", ""))
def test_every_method_is_watched(recipe: Any, config: Any, run: Run) -> None:
    """The held-out reward is minus the length, so its mean is known; wins are measured at every second rollout only."""
    vitals = made_by(recipe, config, run, held_out_reward=SHORT).manifest.facts["vitals"]
    assert len(vitals) >= 4
    for row in vitals:
        assert row["held_out_reward"] == pytest.approx(-row["length"], abs=1e-4)
        assert ("win_rate" in row) == (row["rollout"] % 2 == 0)
    assert all(0 <= row["win_rate"] <= 1 for row in vitals if "win_rate" in row)


def test_an_ensemble_that_disagrees_is_seen(run: Run) -> None:
    """Two rewards that are 2 apart on every answer: their standard deviation is 1."""
    two = NamedReward("letters and two", lambda prompt, answer: LETTERS(prompt, answer) + 2.0)
    vitals = made_by(grpo, GRPOConfig(**TINY), run, reward=RewardEnsemble((LETTERS, two))).manifest.facts["vitals"]
    assert fmean(row["reward_disagreement"] for row in vitals) == pytest.approx(1.0)


def test_the_doctor_ends_a_training_and_what_was_learnt_is_kept(run: Run) -> None:
    config = GRPOConfig(**{**TINY, "epochs": 20}, watch=WatchConfig(doctor={"stops": ("dead_reward",)}))
    warned: list[str] = []
    with (
        pytest.raises(MygptError, match=r"Dead reward since rollout 1.*nothing is learnt") as told,
        again(run, a=lambda event: warned.append(event["text"]) if event["event"] == "warning" else None) as listening,
    ):
        made_by(grpo, config, listening, reward=DULL)
    assert "is kept in" in told.value.fix and len([text for text in warned if text.startswith("Dead reward")]) == 1
    goes_on = GRPOConfig(**{**TINY, "epochs": 5})
    assert len(made_by(grpo, goes_on, run, reward=DULL).manifest.facts["vitals"]) == 10


def test_a_healthy_training_is_left_alone(run: Run) -> None:
    said: list[str] = []
    config = PPOConfig(**{**FAST, "rollouts": 6, "watch": WatchConfig(doctor={"stops": ("collapse", "kl_blow_up"), "answers_end": False})})
    with again(run, a=lambda event: said.append(event["text"]) if event["event"] == "warning" else None) as listening:
        made_by(ppo, config, listening)
    assert not [text for text in said if "since rollout" in text]
