"""PPO: a policy learns from rewards for its own answers, and is held near where it began.

    answers to the next prompts, their rewards, KL to the reference, values, advantages        `experience`
    several epochs of fresh minibatches: clipped policy and value losses, entropy bonus,
        KL as a loss, next-token loss of other texts, early stop                               here
    what a nat of KL costs in the next rollout                                                 `kl`

Source     Schulman et al. 2017, arXiv:1707.06347, equations 7 and 9; of language models: Ziegler et al. 2019, arXiv:1909.08593, and its
           code; next-token loss mixed in: Ouyang et al. 2022, arXiv:2203.02155, equation 2. The details of Huang et al. 2024,
           arXiv:2403.17031, are listed one by one in docs/align/ppo.md
We differ  value function and policy share a trunk, as in Ziegler et al.; losses are means over the tokens of a whole minibatch, whitening
           is over those of the whole rollout, however either is split; no dropout
Dims       N sampled tokens of a micro-batch   D hidden
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from mygpt.align.experience import Experience, by_length, gathered, passed
from mygpt.align.kl import AdaptiveKL, k2
from mygpt.align.policy import open_policy, policy_blueprint
from mygpt.align.policy_losses import approx_kl, clipped_surrogate, clipped_value_losses
from mygpt.align.ppo_config import PPOConfig
from mygpt.align.ppo_inputs import planned, prompts_of, require_whole_groups, texts_of, value_head_of
from mygpt.align.ppo_vitals import Seen, vitals_of
from mygpt.align.remote_rollouts import sampler_of
from mygpt.align.rollout_memory import Amount, require_rollout_memory
from mygpt.align.watch import Watch
from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import recipe
from mygpt.core.run import Run
from mygpt.infer.protocols import Completer
from mygpt.infer.rewards import IdentifiedReward
from mygpt.lm.chat import Rendered
from mygpt.training.batches import Batch, batch_of
from mygpt.training.fit import foreseen
from mygpt.training.forecast import Forecast
from mygpt.training.losses import chunk_labels_for, summed_cross_entropy
from mygpt.training.schedules import linear
from mygpt.training.tuning import learnt, peak_rate, published, tuning_steps

_SHARE_OF_TUNING_RATE = 0.2  # of a method's usual learning rate: rewards are noisier than labels


@recipe
def ppo(
    config: PPOConfig,
    *,
    model: Model,
    dataset: Dataset,
    reward: IdentifiedReward,
    reference: Model | None = None,
    ptx: Dataset | None = None,
    sampler: Completer | None = None,
    held_out_reward: IdentifiedReward | None = None,
    run: Run,
) -> Adapter | Model:
    """Learn to be rewarded for answers to the prompts in the split `train` of `dataset`: an Adapter on `model`, or a new Model.

    It is held near `reference`; without one, near `model` as it is. `ptx` are texts or conversations whose next tokens are learnt beside
    the rewards, so that the policy keeps what it could do. `sampler`, the address of a vLLM server, takes the place of the engine here.
    Nothing is learnt from `held_out_reward`: the doctor watches it.
    """
    config = _with_rate(config, run)
    bare = policy_blueprint(model, config)
    prompts, texts = prompts_of(dataset, bare, config), texts_of(ptx, bare, config)
    prompt_tokens = [len(bare.renderer.prompt(prompt)) for prompt in prompts]
    forecast = forecast_of(config, model, prompt_tokens, texts, reference=reference, home=run.home)
    run.note(f"Training needs at most {forecast.told()}.")
    policy = open_policy(model, config, reference=reference, run=run)
    module, device, chunk_labels = policy.module, policy.device, chunk_labels_for(policy.module)
    sample = sampler_of(policy, sampler, config, run=run)
    value_head = value_head_of(policy, reward if config.value_from_reward else None)
    work = planned(texts, config, run=run)
    memory: dict[str, Any] = {"coefficient": config.kl.coefficient, "rewards": [0, 0.0, 0.0], "vitals": []}
    kl_target = config.kl.target if isinstance(config.kl, AdaptiveKL) else None
    watched: dict[str, Any] = {"held_out": held_out_reward, "kl_target": kl_target, "memory": memory, "run": run}
    watch = Watch(config.watch, policy, prompts, reward, **watched)
    more: dict[str, Any] = {"heads": {"value": value_head}, "adam_eps": config.adam_eps, "memory": memory, "phase": config.updates}
    with tuning_steps(work.plan, work.known, module=module, config=config, **more, run=run) as steps:
        for step in steps:
            number, update = divmod(step.number - 1, config.updates)
            if update == 0:
                if watch.ends(number, steps):
                    break
                experience = gathered(policy, value_head, sample, prompts, reward, number=number, memory=memory, config=config, run=run)
                work.tell(experience.made)
                seen = Seen()

            if config.stop_approx_kl is not None and seen.approx_kl > config.stop_approx_kl:
                step.skip()
            else:
                sampled, others = work.parted(step.rows)
                step.cut(by_length(sampled, config.micro_batch_tokens) + by_length(others, config.micro_batch_tokens))
                for rows in step.micro_batches:
                    batch = batch_of([work.examples[i] for i in rows], padding_id=policy.padding_id, device=device)
                    if rows[0] in sampled:
                        losses_N = token_losses(module, value_head, batch, experience, rows, seen=seen, config=config)
                        loss = losses_N.sum() / work.num_trained(sampled)
                    else:
                        nats = summed_cross_entropy(module, batch.ids_BT, batch.trained_BT, chunk_labels=chunk_labels)
                        loss = config.ptx_weight * nats / work.num_trained(others)
                    loss.backward()
                    step.add(loss, computed_tokens=batch.ids_BT.numel())
                step.update(learning_rate=rate_of(number, config), max_grad_norm=config.max_grad_norm)
                seen.updated(step.grad_norm)

            if update == config.updates - 1:
                vitals = vitals_of(number + 1, experience, seen, coefficient=memory["coefficient"], samples=config.samples)
                vitals = watch.after(vitals, list(experience.made.values()))
                memory["vitals"].append(vitals.logged())
                memory["coefficient"] = config.kl.next(memory["coefficient"], kl=experience.kl, num_answers=config.answers)

    facts = {**learnt(module, policy.loaded, config, steps), "template": policy.renderer.template_digest, "forecast": forecast.facts()}
    facts |= watch.concluded({"vitals": memory["vitals"], "sentences": [told(memory["vitals"])]})
    tuned = published(module, policy.loaded, config, facts=facts, inherited=model.manifest.facts, run=run)
    steps.checkpoints.clear()
    return tuned


def ppo_forecast(
    config: PPOConfig, *, model: Model, dataset: Dataset, reference: Model | None = None, ptx: Dataset | None = None, home: Path
) -> dict[str, Any]:
    """What `ppo` would do and need at most, said by `--dry-run`. No weight is loaded."""
    bare = policy_blueprint(model, config)
    tokens = [len(bare.renderer.prompt(prompt)) for prompt in prompts_of(dataset, bare, config)]
    forecast = forecast_of(config, model, tokens, texts_of(ptx, bare, config), reference=reference, home=home)
    return foreseen(forecast, examples=len(tokens))


def forecast_of(
    config: PPOConfig,
    model: Model,
    prompt_tokens: Sequence[int],
    texts: Sequence[Rendered] = (),
    *,
    reference: Model | None = None,
    home: Path,
) -> Forecast:
    """Of prompts of so many tokens, at most. Raises Refused when this machine does not have it."""
    require_whole_groups(config)

    def amount_of(config: PPOConfig) -> Amount:
        return Amount(
            config.answers // config.samples,
            config.samples,
            config.max_answer_tokens,
            rollouts=config.rollouts,
            updates=config.updates,
            parts=config.minibatches,
            in_trees=False,
        )

    longest = sorted(((len(text.token_ids), sum(text.trained[1:])) for text in texts), reverse=True)[: config.ptx_rows]
    fewer = config.answers // 2
    others = [{"answers": fewer}] if config.answers % (2 * config.samples) == 0 and fewer >= config.minibatches else []
    more: dict[str, Any] = {"beside": longest, "reference": reference, "others": others, "home": home}
    return require_rollout_memory(config, model, prompt_tokens, amount_of, **more)


def token_losses(
    module: Any,
    value_head: torch.nn.Module,
    batch: Batch,
    experience: Experience,
    rows: Sequence[int],
    *,
    seen: Seen,
    config: PPOConfig,
) -> torch.Tensor:
    """(N), of all sampled tokens of `rows`, which `batch` holds in this order."""
    old_logprobs_N, old_values_N, reference_logprobs_N, advantages_N, returns_N = (
        torch.cat([part[i] for i in rows])
        for part in (experience.logprobs, experience.values, experience.reference_logprobs, experience.advantages, experience.returns)
    )
    now = passed(module, value_head, batch, temperature=config.temperature, with_entropies=config.entropy_weight != 0)
    policy = clipped_surrogate(
        now.logprobs_N,
        old_logprobs_N,
        advantages_N,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        dual_clip=config.dual_clip,
    )
    value = clipped_value_losses(now.values_N, old_values_N, returns_N, clip=config.value_clip)
    losses_N = policy.losses + config.value_weight * value.losses
    if now.entropies_N is not None:
        losses_N = losses_N - config.entropy_weight * now.entropies_N
    if config.kl_loss:
        losses_N = losses_N + config.kl_loss * k2(now.logprobs_N, reference_logprobs_N)
    seen.add(policy, approx_kl(now.logprobs_N, old_logprobs_N))
    return losses_N


def rate_of(number: int, config: PPOConfig) -> float:
    """The learning rate of all updates of rollout `number`, from 0."""
    shares = {"warmup_share": config.warmup_share, "final_share": config.final_share}
    return peak_rate(config) * linear(number, num_steps=config.rollouts, **shares)


def told(vitals: Sequence[dict[str, float]]) -> str:
    """In words: the reward at the beginning and at the end, each over a tenth of the rollouts."""
    some = max(1, len(vitals) // 10)
    first, last = (fmean(one["reward"] for one in part) for part in (vitals[:some], vitals[-some:]))
    kl = fmean(one["kl"] for one in vitals[-some:])
    return f"Reward {first:.3g} at first, {last:.3g} at the end of {len(vitals)} rollouts, {kl:.3g} nats an answer from the reference."


def _with_rate(config: PPOConfig, run: Run) -> PPOConfig:
    if config.learning_rate is not None:
        return config
    rate = _SHARE_OF_TUNING_RATE * config.method.learning_rate
    run.note(f"Learning rate {rate:g}, a fifth of the usual one of `method={config.method.name}`.")
    return config.model_copy(update={"learning_rate": rate})
