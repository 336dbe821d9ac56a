"""REINFORCE: an answer that was worth more than usual becomes likelier, token by token. One answer a prompt is enough.

    baseline=batch      what is usual: the mean of the rollout
    baseline=moving     the mean of all rollouts so far, the newer the weightier
    baseline=whitened   REINFORCE++: each token is worth what is still to come, its KL in it, whitened over the whole rollout

Source     Williams 1992, "Simple statistical gradient-following algorithms", section 2; REINFORCE++: Hu 2025, arXiv:2501.03262
We differ  `batch` and `moving` sum over an answer's tokens and average over answers, `whitened` averages over tokens, as its paper does;
           the ratio is clipped, which matters with several updates from one rollout only
Cost       as GRPO, and two forward passes for the KL (none with `kl_coefficient=0`)
Dims       N sampled tokens   L tokens of an answer
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from mygpt.align.advantages import whitened
from mygpt.align.group_advantages import moved_baseline, rewards_to_go
from mygpt.align.kl import k1
from mygpt.align.policy import open_policy
from mygpt.align.policy_losses import clipped_surrogate
from mygpt.align.remote_rollouts import sampler_of
from mygpt.align.reward_choice import opened_reward
from mygpt.align.rollout_memory import prompts_within_memory, rollouts_forecast
from mygpt.align.scored_rollouts import (
    RolloutConfig,
    Scored,
    Watched,
    cut,
    logprobs_of_rows,
    remember,
    rollout_plan,
    scored_rollouts,
    told,
    with_rate,
)
from mygpt.align.shared_prompts import answer_logprobs, tree_batch
from mygpt.align.watch import Watch
from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import recipe
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.infer.protocols import Completer
from mygpt.infer.rewards import IdentifiedReward
from mygpt.training.losses import chunk_labels_for
from mygpt.training.tuning import learnt, published, rate_at, tuning_steps


class BatchMean(Config):
    """The mean of the rollout."""

    name: Literal["batch"] = "batch"


class MovingMean(Config):
    """The mean so far."""

    name: Literal["moving"] = "moving"
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9


class Whitened(Config):
    """REINFORCE++."""

    name: Literal["whitened"] = "whitened"


class ReinforceConfig(RolloutConfig):
    prompts_per_rollout: PositiveInt = 32
    samples: PositiveInt = 1
    baseline: Annotated[BatchMean | MovingMean | Whitened, Field(discriminator="name")] = BatchMean()
    clip_low: PositiveFloat = 0.2
    clip_high: PositiveFloat = 0.2
    kl_coefficient: NonNegativeFloat = 0.01  # of each token's KL to the reference, taken off its reward


@recipe
def reinforce(
    config: ReinforceConfig,
    *,
    model: Model,
    dataset: Dataset,
    reference: Model | None = None,
    reward: IdentifiedReward | None = None,
    sampler: Completer | None = None,
    held_out_reward: IdentifiedReward | None = None,
    run: Run,
) -> Adapter | Model:
    """Learn from answers to the prompts of the split `train`: an Adapter on `model`, or a new Model when its own weights are trained.

    `reward`, a model or a function, takes the place of the setting; `sampler`, the address of a vLLM server, that of the engine here.
    Nothing is learnt from `held_out_reward`: the doctor watches it.
    """
    config = with_rate(config, run=run)
    prompts, forecast = prompts_within_memory(config, model, dataset, reference=reference, samples_here=sampler is None, run=run)
    policy = open_policy(model, config, reference=reference, run=run)
    plan, known = rollout_plan(len(prompts), config, run=run)
    sample = sampler_of(policy, sampler, config, run=run)
    chunk_labels = chunk_labels_for(policy.module)
    memory: dict[str, Any] = {"asked": 0, "flat": 0, "vitals": [], "baseline": None}
    with (
        opened_reward(config.reward, prompts) if reward is None else nullcontext(reward) as judge,
        tuning_steps(plan, known, module=policy.module, config=config, memory=memory, phase=config.updates, run=run) as steps,
    ):
        watch = Watch(config.watch, policy, prompts, judge, held_out=held_out_reward, memory=memory, run=run)
        for step in steps:
            number, update = divmod(step.number - 1, config.updates)
            if update == 0:
                if watch.ends(number, steps):
                    break
                scored = scored_rollouts(sample, prompts, judge, config, number=number, memory=memory, run=run)
                watched, reference_logprobs = Watched(), None
                kl = {i: torch.zeros(one.num_tokens) for i, one in scored.made.items()}
                if config.kl_coefficient or config.updates_per_pass > 1:
                    watched.old = logprobs_of_rows(policy.module, policy, scored.made, config)
                if config.kl_coefficient:
                    with policy.reference() as frozen:
                        reference_logprobs = logprobs_of_rows(frozen, policy, scored.made, config)
                    kl = {i: k1(watched.old[i], reference_logprobs[i]).cpu() for i in scored.made}
                advantages = advantages_of(scored, kl, config, memory)

            weights = token_weights(step.rows, scored, config)
            learnt_rows = {i for i in step.rows if advantages[i].any()}
            if update == 0:
                watched.look(scored, learnt_rows, policy, config, reference=reference_logprobs)
            for trees in cut(step, known, scored, learnt_rows, policy, config):
                if not trees:
                    step.add(torch.zeros(()), computed_tokens=0)
                    continue
                batch = tree_batch(trees, scored.made, policy)
                logprobs_N = answer_logprobs(policy.module, batch, temperature=config.temperature, chunk_labels=chunk_labels)
                for i, logprobs_L in batch.each(logprobs_N.detach()).items():
                    watched.old.setdefault(i, logprobs_L)
                old_N, advantages_N = batch.joined(watched.old), batch.joined(advantages).to(policy.device)
                surrogate = clipped_surrogate(logprobs_N, old_N, advantages_N, clip_low=config.clip_low, clip_high=config.clip_high)
                loss = (batch.spread(weights) * surrogate.losses).sum()
                loss.backward()
                watched.add(surrogate, logprobs_N, old_N)
                step.add(loss, computed_tokens=batch.ids_BT.numel())
            step.update(learning_rate=rate_at(step, config), max_grad_norm=config.max_grad_norm)

            if update == config.updates - 1:
                watched.grad_norm = step.grad_norm
                vitals = watched.vitals(
                    number, scored, policy, config, reference=reference_logprobs, coefficient=config.kl_coefficient or None
                )
                remember(vitals, scored, watched, config, memory, watch=watch, run=run)

    facts = {**learnt(policy.module, policy.loaded, config, steps), **watch.concluded(told(memory, judge)), "forecast": forecast.facts()}
    made = published(policy.module, policy.loaded, config, facts=facts, inherited=model.manifest.facts, run=run)
    steps.checkpoints.clear()
    return made


def reinforce_forecast(
    config: ReinforceConfig, *, model: Model, dataset: Dataset, reference: Model | None = None, home: Path
) -> dict[str, Any]:
    """What `reinforce` would do and need at most, said by `--dry-run`. No weight is loaded."""
    return rollouts_forecast(config, model=model, dataset=dataset, reference=reference, home=home)


def advantages_of(
    scored: Scored, kl: Mapping[int, torch.Tensor], config: ReinforceConfig, memory: dict[str, Any]
) -> dict[int, torch.Tensor]:
    """(L) of each row. `kl` of its tokens; `memory["baseline"]` moves on."""
    rewards = scored.worth_of
    if isinstance(config.baseline, Whitened):
        to_come = {i: rewards[i] - config.kl_coefficient * rewards_to_go(kl[i][None])[0] for i in rewards}
        lengths = [len(one) for one in to_come.values()]
        all_1N = torch.cat(list(to_come.values()))[None]
        return dict(zip(to_come, whitened(all_1N, torch.ones_like(all_1N, dtype=torch.bool))[0].split(lengths), strict=True))
    worth = {i: rewards[i] - config.kl_coefficient * float(kl[i].sum()) for i in rewards}
    usual = sum(worth.values()) / len(worth)
    if isinstance(config.baseline, MovingMean):
        before = memory["baseline"]
        memory["baseline"] = moved_baseline(before, usual, decay=config.baseline.decay)
        usual = usual if before is None else before
    return {i: torch.full((len(kl[i]),), value - usual) for i, value in worth.items()}


def token_weights(rows: Sequence[int], scored: Scored, config: ReinforceConfig) -> dict[int, float]:
    """What each token weighs in the loss of an update that learns from `rows`."""
    if isinstance(config.baseline, Whitened):
        return dict.fromkeys(rows, 1 / sum(scored.made[i].num_tokens for i in rows))
    return dict.fromkeys(rows, 1 / len(rows))
