"""RLOO: REINFORCE whose baseline is the mean of the other answers to the prompt. A whole answer is one action, its KL part of its reward.

Source     Ahmadian et al. 2024, arXiv:2402.14740, section 3.2 and equation 8; the baseline: Kool et al. 2019, "Buy 4 REINFORCE samples, get
           a baseline for free"
We differ  with several updates from one rollout the ratio of whole answers is clipped, as in trl; in the first it is exactly 1, and the
           gradient the paper's
Cost       as GRPO, and two forward passes for the KL (none with `kl_coefficient=0`)
Dims       N sampled tokens   B answers of a micro-batch   P prompts   G answers of a prompt
"""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat

from mygpt.align.group_advantages import leave_one_out
from mygpt.align.kl import k1
from mygpt.align.policy import open_policy
from mygpt.align.policy_losses import clipped_surrogate
from mygpt.align.remote_rollouts import sampler_of
from mygpt.align.reward_choice import opened_reward
from mygpt.align.rollout_memory import prompts_within_memory, rollouts_forecast
from mygpt.align.scored_rollouts import (
    RolloutConfig,
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
from mygpt.core.run import Run
from mygpt.infer.protocols import Completer
from mygpt.infer.rewards import IdentifiedReward
from mygpt.training.losses import chunk_labels_for
from mygpt.training.tuning import learnt, published, rate_at, tuning_steps


class RLOOConfig(RolloutConfig):
    samples: Annotated[int, Field(ge=2)] = 4
    clip_low: PositiveFloat = 0.2
    clip_high: PositiveFloat = 0.2
    kl_coefficient: NonNegativeFloat = 0.05  # of the KL to the reference, taken off the reward of an answer


@recipe
def rloo(
    config: RLOOConfig,
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
    memory: dict[str, Any] = {"asked": 0, "flat": 0, "vitals": []}
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
                watched, reference_logprobs, worth_PG = Watched(whole_answers=True), None, scored.worth_PG
                if config.kl_coefficient or config.updates_per_pass > 1:
                    watched.old = logprobs_of_rows(policy.module, policy, scored.made, config)
                if config.kl_coefficient:
                    with policy.reference() as frozen:
                        reference_logprobs = logprobs_of_rows(frozen, policy, scored.made, config)
                    worth_PG = less_kl(worth_PG, watched.old, reference_logprobs, coefficient=config.kl_coefficient)
                advantages = scored.by_row(leave_one_out(worth_PG))

            learnt_rows = {i for i in step.rows if advantages[i]}
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
                logprobs_B = torch.stack([logprobs_L.sum() for logprobs_L in batch.each(logprobs_N).values()])
                old_B = torch.stack([watched.old[i].sum() for i in batch.rows])
                advantages_B = torch.tensor([advantages[i] for i in batch.rows], device=policy.device)
                surrogate = clipped_surrogate(logprobs_B, old_B, advantages_B, clip_low=config.clip_low, clip_high=config.clip_high)
                loss = surrogate.losses.sum() / len(step.rows)
                loss.backward()
                watched.add(surrogate, logprobs_N.detach(), batch.joined(watched.old))
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


def rloo_forecast(config: RLOOConfig, *, model: Model, dataset: Dataset, reference: Model | None = None, home: Path) -> dict[str, Any]:
    """What `rloo` would do and need at most, said by `--dry-run`. No weight is loaded."""
    return rollouts_forecast(config, model=model, dataset=dataset, reference=reference, home=home)


def less_kl(
    rewards_PG: torch.Tensor,
    logprobs: Mapping[int, torch.Tensor],
    reference_logprobs: Mapping[int, torch.Tensor],
    *,
    coefficient: float,
) -> torch.Tensor:
    """(P, G). Log-probabilities (L) of the rows, in the order of `rewards_PG`."""
    kl = [float(k1(logprobs[i], reference_logprobs[i]).sum()) for i in sorted(logprobs)]
    return rewards_PG - coefficient * torch.tensor(kl).view_as(rewards_PG)
