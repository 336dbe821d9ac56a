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
from mygpt.core.run import Run
from tests.align.rewarded import LETTERS, TINY, Killed, again, made_by, weights_of
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


STOPS = WatchConfig(doctor={"stops": ("dead_reward",)})
STOPPED: list[tuple[Any, Any]] = [
    (ppo, PPOConfig(**{**FAST, "rollouts": 8, "watch": STOPS})),
    (grpo, GRPOConfig(**{**TINY, "epochs": 4, "passes": 2}, watch=STOPS)),
    (rloo, RLOOConfig(**{**TINY, "epochs": 4}, watch=STOPS)),
    (reinforce, ReinforceConfig(**{**TINY, "epochs": 4}, watch=STOPS)),
]


@pytest.mark.parametrize(("recipe", "config"), STOPPED, ids=lambda one: getattr(one, "__name__", ""))
def test_the_doctor_ends_a_training_and_what_was_learnt_is_published(recipe: Any, config: Any, run: Run) -> None:
    """All answers earn the same: seen after the fifth of eight rollouts. The same command then finds what was made."""
    asked: list[str] = []
    counted = NamedReward("dull", lambda prompt, answer: float(asked.append(answer.text) is None))
    warned: list[str] = []
    run.listeners.append(lambda event: warned.append(event["text"]) if event["event"] == "warning" else None)
    made = made_by(recipe, config, run, reward=counted)
    facts = made.manifest.facts
    assert len(facts["vitals"]) == 5
    assert {key: facts["stopped"][key] for key in ("rollout", "of", "fault", "since", "seen_at")} == {
        "rollout": 5, "of": 8, "fault": "dead_reward", "since": 1, "seen_at": 5,
    }  # fmt: skip
    assert facts["sentences"][0].startswith("Stopped by the doctor at rollout 5 of 8. Dead reward since rollout 1: ")
    assert len([text for text in warned if text.startswith(facts["sentences"][0])]) == 1
    assert made.kind == "adapter" and weights_of(made) and not list((run.home / "checkpoints").glob("*"))
    before = len(asked)
    assert made_by(recipe, config, run, reward=counted).digest == made.digest and len(asked) == before


def test_a_stop_after_a_kill_is_the_same_stop(run: Run) -> None:
    """Killed in the fourth rollout: what the doctor saw before is remembered, and the result is that of a training without a kill."""
    config = GRPOConfig(**{**TINY, "epochs": 4, "kl_coefficient": 0.1}, watch=STOPS)
    whole = made_by(grpo, config, run, reward=DULL)

    def kills(event: dict[str, Any]) -> None:
        if event["event"] == "log" and event.get("training_step") == 4:
            raise Killed

    with pytest.raises(Killed), again(run, a=kills) as killed:
        made_by(grpo, config, killed, reward=DULL)
    with again(run) as last:
        other = made_by(grpo, config, last, reward=DULL)
    assert other.manifest.content == whole.manifest.content and other.manifest.facts["stopped"] == whole.manifest.facts["stopped"]


def test_a_healthy_training_is_left_alone(run: Run) -> None:
    said: list[str] = []
    config = PPOConfig(**{**FAST, "rollouts": 6, "watch": WatchConfig(doctor={"stops": ("collapse", "kl_blow_up"), "answers_end": False})})
    with again(run, a=lambda event: said.append(event["text"]) if event["event"] == "warning" else None) as listening:
        made_by(ppo, config, listening)
    assert not [text for text in said if "since rollout" in text]


FLAT: dict[str, Any] = {**TINY, "prompts_per_rollout": 4, "samples": 8, "epochs": 1, "learning_rate": 0.05, "warmup_share": 0.0}


def of_the_prompt(prompt: Any, answer: Any) -> float:
    """Balanced, so that two of four prompts are worth exactly the mean of all."""
    return {"Who": 1.0, "When": -1.0}.get(prompt.question.split()[0], 0.0)


HALF_FLAT = NamedReward("half flat", lambda prompt, answer: LETTERS(prompt, answer) if prompt.question[:3] in ("Who", "Whe") else 0.0)
BY_PROMPT = NamedReward("of the prompt", of_the_prompt)


@pytest.mark.parametrize(
    ("recipe", "config", "reward"),
    [
        (grpo, GRPOConfig(**FLAT), HALF_FLAT),
        (grpo, GRPOConfig(**{**FLAT, "max_answer_tokens": 60}, skip_cut_off=True, kl_coefficient=0.05), LETTERS),
        (rloo, RLOOConfig(**FLAT, kl_coefficient=0.0), HALF_FLAT),
        (reinforce, ReinforceConfig(**FLAT, kl_coefficient=0.0), BY_PROMPT),
    ],
    ids=["grpo", "grpo without cut answers", "rloo", "reinforce"],
)
def test_answers_that_teach_nothing_have_the_kl_of_before_the_update(recipe: Any, config: Any, reward: Any, run: Run) -> None:
    """The policy that wrote the first rollout is the reference: KL 0, also of answers that the update, which moves it, never meets."""
    [row] = made_by(recipe, config, run, reward=reward).manifest.facts["vitals"]
    assert row["grad_norm"] > 0 and row["kl"] == 0
