"""GRPO: answers to one prompt are judged against one another, and what was better than the group becomes likelier. No critic.

`average` says what every token weighs, `advantage` what an answer is worth: with `constant_length` and `centred` this is Dr. GRPO, with
`token_mean`, `clip_high=0.28`, `skip_cut_off` and `resample` it is DAPO, with `ratio=answer` and `sequence_mean` GSPO, with
`clipped=weight` CISPO. Any reward will do: a rule, a verifier, a model.

Source     Shao et al. 2024, arXiv:2402.03300, equation 3; DAPO: Yu et al. 2025, arXiv:2503.14476, section 3; Dr. GRPO: Liu et al. 2025,
           arXiv:2503.20783, section 3.2; GSPO: Zheng et al. 2025, arXiv:2507.18071; CISPO: MiniMax 2025, arXiv:2506.13585
We differ  the averages are over all answers of an update, however it is split; log-probabilities of the old policy are those of the
           training's own forward pass when it meets an answer first, so that the first ratio is exactly 1; answers without a gradient
           are not computed; KL coefficient 0, as in trl
Cost       one forward and backward pass over what has an advantage, prompts once a tree; a forward pass more with `kl_coefficient`
Dims       N sampled tokens   P prompts   G answers of a prompt
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat

from mygpt.align.group_advantages import centred, group_relative, has_spread
from mygpt.align.kl import k3
from mygpt.align.policy import open_policy
from mygpt.align.policy_losses import Surrogate, clipped_surrogate, of_whole_answers, weighed_likelihood
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
from mygpt.core.run import Run
from mygpt.infer.protocols import Completer
from mygpt.infer.rewards import IdentifiedReward
from mygpt.training.losses import chunk_labels_for
from mygpt.training.tuning import learnt, published, rate_at, tuning_steps


class GRPOConfig(RolloutConfig):
    samples: Annotated[int, Field(ge=2)] = 8
    advantage: Literal["group_relative", "centred"] = "group_relative"
    average: Literal["sequence_mean", "token_mean", "constant_length"] = "token_mean"
    ratio: Literal["token", "answer"] = "token"  # what is clipped: each token's, or one of the whole answer (GSPO)
    clipped: Literal["gain", "weight"] = "gain"  # the gain, so that the token teaches nothing, or only its weight (CISPO)
    clip_low: PositiveFloat = 0.2
    clip_high: PositiveFloat = 0.2
    kl_coefficient: NonNegativeFloat = 0.0  # of k3 to the reference, in the loss
    skip_cut_off: bool = False  # nothing is learnt from answers that the limit ended


@recipe
def grpo(
    config: GRPOConfig,
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
                advantages = scored.by_row(advantages_of(scored.worth_PG, config))
                watched = Watched(whole_answers=config.ratio == "answer")
                if config.updates_per_pass > 1:  # else the first pass meets every answer before the policy has moved
                    watched.old = logprobs_of_rows(policy.module, policy, scored.made, config)
                reference_logprobs = None
                if config.kl_coefficient:
                    with policy.reference() as frozen:
                        reference_logprobs = logprobs_of_rows(frozen, policy, scored.made, config)

            weights = token_weights(step.rows, scored, config)
            learnt_rows = {i for i in step.rows if weights[i] and (advantages[i] or config.kl_coefficient)}
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
                old_N = batch.joined(watched.old)
                reference_N = None if reference_logprobs is None else batch.joined(reference_logprobs)
                lengths = [scored.made[i].num_tokens for i in batch.rows]
                surrogate, losses_N = token_losses(logprobs_N, old_N, reference_N, batch.spread(advantages), lengths, config)
                loss = (batch.spread(weights) * losses_N).sum()
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


def grpo_forecast(config: GRPOConfig, *, model: Model, dataset: Dataset, reference: Model | None = None, home: Path) -> dict[str, Any]:
    """What `grpo` would do and need at most, said by `--dry-run`. No weight is loaded."""
    return rollouts_forecast(config, model=model, dataset=dataset, reference=reference, home=home)


def advantages_of(rewards_PG: torch.Tensor, config: GRPOConfig) -> torch.Tensor:
    """(P, G)"""
    found_PG = group_relative(rewards_PG) if config.advantage == "group_relative" else centred(rewards_PG)
    return torch.where(has_spread(rewards_PG)[:, None], found_PG, 0.0)  # exactly: what has no advantage is not computed


def token_losses(
    logprobs_N: torch.Tensor,
    old_logprobs_N: torch.Tensor,
    reference_logprobs_N: torch.Tensor | None,
    advantages_N: torch.Tensor,
    lengths: Sequence[int],
    config: GRPOConfig,
) -> tuple[Surrogate, torch.Tensor]:
    """(N), what each token adds before it is weighed; `reference_logprobs_N` where a KL is part of the loss; `lengths` of the answers."""
    compared_N = logprobs_N if config.ratio == "token" else of_whole_answers(logprobs_N, old_logprobs_N, lengths)
    if config.clipped == "weight":
        surrogate = weighed_likelihood(compared_N, old_logprobs_N, advantages_N, clip_high=config.clip_high)
    else:
        surrogate = clipped_surrogate(compared_N, old_logprobs_N, advantages_N, clip_low=config.clip_low, clip_high=config.clip_high)
    if reference_logprobs_N is None:
        return surrogate, surrogate.losses
    return surrogate, surrogate.losses + config.kl_coefficient * k3(logprobs_N, reference_logprobs_N)


def token_weights(rows: Sequence[int], scored: Scored, config: GRPOConfig) -> Mapping[int, float]:
    """What each token of a row weighs in the loss of an update that learns from `rows`; 0 where the answer is left out."""
    kept = {i: scored.made[i].is_finished or not config.skip_cut_off for i in rows}
    lengths = {i: scored.made[i].num_tokens for i in rows}
    match config.average:
        case "sequence_mean":
            return {i: kept[i] / (len(rows) * lengths[i]) for i in rows}
        case "constant_length":
            return {i: kept[i] / (len(rows) * config.max_answer_tokens) for i in rows}
        case "token_mean":
            total = max(1, sum(lengths[i] for i in rows if kept[i]))
            return {i: kept[i] / total for i in rows}
