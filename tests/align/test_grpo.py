"""GRPO: trl's own losses on the same tensors, one gradient whatever the split, and what is learnt from which answers."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.align.grpo import GRPOConfig, grpo, token_losses, token_weights
from mygpt.align.reinforce import ReinforceConfig, reinforce
from mygpt.align.rewards import NamedReward
from mygpt.align.rloo import RLOOConfig, rloo
from mygpt.align.scored_rollouts import penalty_of
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.errors import MygptError, Refused, UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.prompt import Prompt
from tests.align.rewarded import LETTERS, TINY, TRL, Fixed, dataset_of, letters, made_by, resumed_is_uninterrupted, weights_of
from tests.finetune import toys

AVERAGES = {"grpo": "sequence_mean", "dapo": "token_mean", "dr_grpo": "constant_length", "bnpo": "token_mean", "cispo": "token_mean"}


THEIRS = [form for form in TRL["losses"] if form["loss_type"] in AVERAGES]


@pytest.mark.parametrize("form", THEIRS, ids=lambda form: " ".join(map(str, list(form.values())[:3])))
def test_losses_are_trls(form: dict[str, Any]) -> None:
    """Loss and gradient of trl 1.16 on six answers of 1 to 7 tokens (benchmarks/trl_policy_side.py)."""
    fixed = Fixed()
    config = GRPOConfig(
        average=AVERAGES[form["loss_type"]],
        clip_low=form["low"],
        clip_high=form["high"] - (form["loss_type"] == "cispo"),
        ratio="answer" if form.get("level") == "sequence" else "token",
        clipped="weight" if form["loss_type"] == "cispo" else "gain",
        kl_coefficient=form["beta"],
        max_answer_tokens=TRL["max_completion_length"],
    )
    new_N, old_N, reference_N = (part[fixed.is_answer_BL] for part in (fixed.new_BL, fixed.old_BL, fixed.reference_BL))
    _, losses_N = token_losses(new_N, old_N, reference_N if form["beta"] else None, fixed.spread(fixed.advantages_B), fixed.lengths, config)
    weights = token_weights(range(6), fixed.scored, config)
    loss = (fixed.spread(torch.tensor(list(weights.values()), dtype=torch.float64)) * losses_N).sum()
    loss.backward()
    assert loss.item() == pytest.approx(form["loss"], abs=1e-6)
    torch.testing.assert_close(fixed.new_BL.grad, torch.tensor(form["gradient"], dtype=torch.float64), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("more", "share"),
    [({"ratio": "answer", "average": "sequence_mean"}, "answer_clip_share"), ({"clipped": "weight"}, "clip_share")],
    ids=["GSPO", "CISPO"],
)
def test_other_ratios_train_alike_however_split(more: dict[str, Any], share: str, run: Run) -> None:
    settings = {**TINY, "epochs": 1, "passes": 3, "learning_rate": 0.03, **more}
    made = [made_by(grpo, GRPOConfig(**settings, micro_batch_tokens=n), run) for n in (2048, 1)]
    torch.testing.assert_close(*(weights_of(one) for one in made), atol=2e-4, rtol=1e-2)
    vitals = made[0].manifest.facts["vitals"]
    assert all(row["grad_norm"] > 0 and share in row for row in vitals) and vitals[-1][share] > 0


def test_progress_counts_updates_where_nobody_knows_the_tokens(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    with Run(tmp_path, name="told", listeners=(seen.append,)) as run:
        made = made_by(grpo, GRPOConfig(**{**TINY, "epochs": 1}), run)
    told = [one for one in seen if one["event"] == "progress" and one["unit"] in ("updates", "tokens")]
    updates = len(made.manifest.facts["vitals"])
    assert (told[-1]["unit"], told[-1]["done"], told[-1]["total"]) == ("updates", updates, updates)
    assert all(one["eta_seconds"] is None or one["eta_seconds"] >= 0 for one in told)


def test_cut_off_answers_can_be_left_out() -> None:
    """Of lengths 5, 2, 7, 1, 4, 7 the third is left out: the others' 19 tokens share the weight, or the six answers' it still is one of."""
    fixed = Fixed()
    made = dict(fixed.scored.made)
    made[2] = made[2].__class__(made[2].prompt, made[2].answer, made[2].example, is_finished=False)
    scored = fixed.scored.__class__(made, fixed.scored.rewards_PG, 0)
    by_token = token_weights(range(6), scored, GRPOConfig(skip_cut_off=True))
    assert by_token == {0: 1 / 19, 1: 1 / 19, 2: 0, 3: 1 / 19, 4: 1 / 19, 5: 1 / 19}
    by_sequence = token_weights(range(6), scored, GRPOConfig(skip_cut_off=True, average="sequence_mean"))
    assert by_sequence == {0: 1 / 30, 1: 1 / 12, 2: 0, 3: 1 / 6, 4: 1 / 24, 5: 1 / 42}
    assert token_weights(range(6), scored, GRPOConfig()) == dict.fromkeys(range(6), 1 / 26)


def test_any_split_gives_the_same_adapter(run: Run) -> None:
    settings = {**TINY, "epochs": 1, "kl_coefficient": 0.1, "passes": 2}
    whole, parts = (weights_of(made_by(grpo, GRPOConfig(**settings, micro_batch_tokens=n), run)) for n in (2048, 1))
    assert any(value.abs().max() > 0 for name, value in whole.items() if "lora_B" in name)
    torch.testing.assert_close(whole, parts, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("more", [{"passes": 2}, {"updates_per_pass": 2, "resample": 1, "kl_coefficient": 0.05}], ids=["passes", "parts"])
def test_killed_and_resumed_is_uninterrupted(more: dict[str, Any], run: Run) -> None:
    """In the second update of the second rollout, and in the first of the fourth."""
    resumed_is_uninterrupted(grpo, GRPOConfig(**TINY, **more), run, killed_at=4, stopped_at=7)


def test_reward_goes_up(run: Run) -> None:
    """Answers of a random model learn to have letters."""
    settings = {**TINY, "epochs": 12, "learning_rate": 0.03, "samples": 8, "max_answer_tokens": 8}
    facts = made_by(grpo, GRPOConfig(**settings), run).manifest.facts
    rewards = [row["reward"] for row in facts["vitals"]]
    assert sum(rewards[-4:]) > sum(rewards[:4]) + 0.4, rewards
    first, last = facts["vitals"][0], facts["vitals"][-1]
    assert first["kl"] == 0 and last["kl"] > 0.01
    assert first["ratio_max"] == 1 and first["clip_share"] == 0 and first["approx_kl"] == 0
    assert 0 < last["entropy"] < first["entropy"] < 5.2  # nats: ln 181 is an even choice among the tokens
    assert facts["reward"] == {"reward": "function", "name": "letters"} and facts["prompts_asked"] == 48
    assert "rollouts" in facts["sentences"][0]


def test_groups_that_agree_teach_nothing(run: Run) -> None:
    """All answers are worth the same: nothing is computed, no weight moves, and all groups are counted."""
    alike = NamedReward("alike", lambda prompt, answer: 1.0)
    made = made_by(grpo, GRPOConfig(**TINY), run, reward=alike)
    assert all(value.abs().max() == 0 for name, value in weights_of(made).items() if "lora_B" in name)
    assert made.manifest.facts["flat_groups"] == 8 and made.manifest.facts["ledger"]["computed_tokens"] == 0


@pytest.mark.parametrize(("recipe", "config"), [(grpo, GRPOConfig), (rloo, RLOOConfig), (reinforce, ReinforceConfig)])
def test_penalties_are_off_what_is_learnt_from(recipe: Any, config: Any, run: Run) -> None:
    """All answers earn 1: with a penalty a token the short ones become likelier, and the vitals still say 1."""
    alike = NamedReward("alike", lambda prompt, answer: 1.0)
    settings = {**TINY, "epochs": 12, "learning_rate": 0.03, "samples": 8, "max_answer_tokens": 8}
    vitals = made_by(recipe, config(**settings, length_penalty=0.1), run, reward=alike).manifest.facts["vitals"]
    first, last = (sum(row["length"] for row in part) / 4 for part in (vitals[:4], vitals[-4:]))
    assert all(row["reward"] == 1 for row in vitals) and last < first - 1


def test_penalties_by_hand() -> None:
    """0.1 for each of five tokens, and 0.5 where it did not end by itself."""
    one = Fixed().scored.made[0]
    config = GRPOConfig(length_penalty=0.1, missing_stop_penalty=0.5)
    assert (one.num_tokens, penalty_of(one, config)) == (5, pytest.approx(0.5))
    assert penalty_of(replace(one, is_finished=False), config) == pytest.approx(1.0)


def test_other_prompts_take_their_place(run: Run) -> None:
    """Two of four prompts are never worth anything; with two more draws nearly every group that is learnt from differs."""
    dull = {"Who founded the museum?", "Where are the logs?"}
    sides = itertools.count()

    def reward(prompt: Conversation, answer: Answer) -> float:
        return 0.0 if prompt.question in dull else float(next(sides) % 2)

    once, more = (
        made_by(grpo, GRPOConfig(**{**TINY, "epochs": 4}, resample=n), run, reward=NamedReward(f"dull {n}", reward)).manifest.facts
        for n in (0, 3)
    )
    assert once["prompts_asked"] == 16 and once["flat_groups"] == 8
    assert more["prompts_asked"] > 24
    assert all(row["reward"] == pytest.approx(0.5, abs=0.2) for row in more["vitals"])
    assert min(row["reward"] for row in once["vitals"]) < 0.3


@pytest.mark.parametrize("method", [Full(), Prompt(num_tokens=3)], ids=lambda m: m.name)
def test_other_methods(method: Any, run: Run) -> None:
    """Every weight; and virtual tokens, with which no prompt is shared."""
    made = made_by(grpo, GRPOConfig(**{**TINY, "method": method, "epochs": 1}), run)
    assert made.kind == ("model" if method.name == "full" else "adapter") and made.manifest.facts["vitals"][-1]["grad_norm"] > 0
    assert (made.manifest.facts["vitals"][0]["kl"] == 0) == (method.name == "full")  # with virtual tokens it does not begin as the base


def test_a_reward_that_fails_is_named(run: Run) -> None:
    def broken(prompt: Conversation, answer: Answer) -> float:
        return float("nan") if "logs" in prompt.question else letters(prompt, answer)

    with pytest.raises(MygptError, match=r'reward of an answer is nan.*"Where are the logs\?"'):
        made_by(grpo, GRPOConfig(**TINY), run, reward=NamedReward("broken", broken))


def test_bad_prompts_and_settings(run: Run) -> None:
    model = toys.base(toys.BaseConfig(), run=run)
    none, long = (dataset_of([Conversation((Message("user", text),)) for text in texts], run) for texts in ((), ("x" * 110, "y")))
    with pytest.raises(Refused, match="no prompts in the split `train`"):
        grpo(GRPOConfig(**TINY), model=model, dataset=none, reward=LETTERS, run=run)
    with pytest.raises(Refused, match="1 of 2 prompts have more than 114 tokens"):
        grpo(GRPOConfig(**TINY), model=model, dataset=long, reward=LETTERS, run=run)
    with pytest.raises(UsageError, match="2 prompts cannot be learnt from in 3 updates"):
        made_by(grpo, GRPOConfig(**TINY, updates_per_pass=3), run)
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        GRPOConfig(samples=1)
