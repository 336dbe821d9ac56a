"""What PPO learns from: answers, what each of their tokens earned, and how much better that was than expected.

    experience = gathered(policy, value_head, sample, prompts, reward, number=0, memory=memory, config=config, run=run)  of one rollout
    passed(module, value_head, batch, ...)          log-probabilities and values of sampled tokens, in one forward pass

Policy and value function share a trunk. The value of a token is read where the token is chosen: one place before it, in the state that its
distribution comes from. Rows are numbered through the whole training: those of rollout n from n * answers on.

Source     Ziegler et al. 2019, arXiv:1909.08593, section 2.2, and their code; a fixed reward for answers without an end: Huang et al. 2024,
           arXiv:2403.17031, detail 23
We differ  the reward stands at the answer's last token (in TRL one place behind it); nothing is sampled or computed after the stop token
Dims       B answers   T tokens of prompt and answer   L tokens of an answer   N tokens of all answers   D hidden
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from mygpt.align.advantages import gae, whitened
from mygpt.align.kl import ESTIMATORS, k1, penalised_rewards
from mygpt.align.policy import Policy
from mygpt.align.ppo_config import PPOConfig
from mygpt.align.rollouts import Rollout, Sampler, tell_sampler_gap
from mygpt.artifacts.dataset import Conversation
from mygpt.core.run import Run
from mygpt.infer.rewards import Reward, rewards_of
from mygpt.training.batches import Batch, batch_of, cut_by_tokens
from mygpt.training.label_logprobs import label_logprobs, logprobs_and_entropies_of, logprobs_of
from mygpt.training.losses import chunk_labels_for, hidden_states


@dataclass(frozen=True)
class Experience:
    """By row; tensors (L), on the policy's device."""

    made: Mapping[int, Rollout]
    rewards: Mapping[int, float]  # as they were given
    logprobs: Mapping[int, torch.Tensor]  # when they were sampled, at the sampling temperature
    reference_logprobs: Mapping[int, torch.Tensor]
    values: Mapping[int, torch.Tensor]
    advantages: Mapping[int, torch.Tensor]  # whitened
    returns: Mapping[int, torch.Tensor]
    kl: float  # nats an answer: mean over answers of the sum over tokens
    entropy: float  # nats a token


def gathered(
    policy: Policy,
    value_head: torch.nn.Module,
    sample: Sampler,
    prompts: Sequence[Conversation],
    reward: Reward,
    *,
    number: int,
    memory: dict[str, Any],
    config: PPOConfig,
    run: Run,
) -> Experience:
    """Rollout `number`, from 0. `memory` has the `coefficient` of the KL and the `rewards` so far (how many, mean, sum of squares)."""
    made = sample(prompts_of_rollout(prompts, number, config, run=run), run.seed_for(f"rollout/{number}"))
    rewards = rewards_of(reward, [one.prompt for one in made], [one.answer for one in made])
    scores = scored(rewards, [one.is_finished for one in made], memory, config)
    lengths = [one.num_tokens for one in made]
    lengths_B = torch.tensor(lengths, device=policy.device)

    logprobs, reference, values, entropies = _read(policy, value_head, made, config)
    logprobs_BL, reference_BL, values_BL = (pad_sequence(part, batch_first=True) for part in (logprobs, reference, values))
    is_answer_BL = torch.arange(max(lengths), device=policy.device) < lengths_B[:, None]
    tell_sampler_gap(dict(enumerate(made)), dict(enumerate(logprobs)), temperature=config.temperature, run=run)
    kl_BL = ESTIMATORS[config.kl_estimator](logprobs_BL, reference_BL)
    scores_B = torch.tensor(scores, dtype=torch.float32, device=policy.device) - config.length_penalty * lengths_B
    rewards_BL = penalised_rewards(scores_B, kl_BL, is_answer_BL, coefficient=memory["coefficient"])
    if config.whiten_rewards:
        rewards_BL = whitened(rewards_BL, is_answer_BL, shift_mean=False)
    advantages_BL = gae(rewards_BL, values_BL, is_answer_BL, gamma=config.gamma, lam=config.lam)
    returns_BL = advantages_BL + values_BL
    advantages_BL = whitened(advantages_BL, is_answer_BL)

    first = number * config.answers

    def by_row(values: Sequence[Any]) -> dict[int, Any]:
        return dict(enumerate(values, start=first))

    return Experience(
        by_row(made),
        by_row(rewards),
        by_row(logprobs),
        by_row(reference),
        by_row(values),
        advantages=by_row([row_L[:length] for row_L, length in zip(advantages_BL, lengths, strict=True)]),
        returns=by_row([row_L[:length] for row_L, length in zip(returns_BL, lengths, strict=True)]),
        kl=float(k1(logprobs_BL, reference_BL)[is_answer_BL].sum()) / len(made),
        entropy=float(torch.cat(entropies).mean()),
    )


def prompts_of_rollout(prompts: Sequence[Conversation], number: int, config: PPOConfig, *, run: Run) -> list[Conversation]:
    """All prompts in turn, in a new order each time round."""
    count = config.answers // config.samples
    found = []
    for place in range(number * count, (number + 1) * count):
        turn, i = divmod(place, len(prompts))
        order = list(range(len(prompts)))
        run.random(f"prompts/{turn}").shuffle(order)
        found.append(prompts[order[i]])
    return found


def scored(rewards: Sequence[float], are_finished: Sequence[bool], memory: dict[str, Any], config: PPOConfig) -> list[float]:
    """What answers are worth: rewards scaled and clipped as the settings say, and less where an answer did not end by itself."""
    scale = 1.0
    if config.scale_rewards:
        memory["rewards"] = _counted(rewards, memory["rewards"])
        count, _, squares = memory["rewards"]
        scale = math.sqrt(squares / (count - 1)) if count > 1 and squares > 0 else 1.0
    limit = config.clip_rewards or math.inf
    found = []
    for reward, is_finished in zip(rewards, are_finished, strict=True):
        score = min(max(reward / scale, -limit), limit)
        if not is_finished:
            score = score - config.missing_stop_penalty if config.missing_stop_reward is None else config.missing_stop_reward
        found.append(score)
    return found


def _counted(rewards: Sequence[float], before: Sequence[float]) -> list[float]:
    """[how many, their mean, the sum of squared distances from it] with `rewards` added (Welford's update)."""
    count, mean, squares = before
    for reward in rewards:
        count += 1
        off = reward - mean
        mean += off / count
        squares += off * (reward - mean)
    return [count, mean, squares]


# -- the forward pass --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Passed:
    """Of sampled tokens, row after row; with gradients where there are some."""

    logprobs_N: torch.Tensor
    values_N: torch.Tensor
    entropies_N: torch.Tensor | None  # where they were asked for


def passed(module: Any, value_head: torch.nn.Module, batch: Batch, *, temperature: float, with_entropies: bool) -> Passed:
    is_label = batch.trained_BT[:, 1:]
    hidden_ND, labels_N = hidden_states(module, batch.ids_BT)[:, :-1][is_label], batch.ids_BT[:, 1:][is_label]
    values_N = value_head(hidden_ND.float())[:, 0]
    asked: dict[str, Any] = {"temperature": temperature, "chunk_labels": _chunk_labels(module)}
    if with_entropies:
        logprobs_N, entropies_N = logprobs_and_entropies_of(module, hidden_ND, labels_N, **asked)
        return Passed(logprobs_N, values_N, entropies_N)
    return Passed(logprobs_of(module, hidden_ND, labels_N, **asked), values_N, None)


def _chunk_labels(module: Any) -> int:
    """Where nothing is learnt, half of what a training takes at once: what answers were sampled in lies freed between, and large blocks
    fit into no such gap. Where gradients are kept, smaller chunks would be computed twice."""
    most = chunk_labels_for(module)
    return most if torch.is_grad_enabled() else max(1, most // 2)


@torch.no_grad()
def _read(policy: Policy, value_head: torch.nn.Module, made: Sequence[Rollout], config: PPOConfig) -> tuple[list[torch.Tensor], ...]:
    """Log-probabilities, those of the reference, values, entropies: each a list by answer."""
    found: tuple[list[torch.Tensor], ...] = tuple([torch.empty(0)] * len(made) for _ in range(4))
    chunk_labels = _chunk_labels(policy.module)
    for rows in by_length({i: len(one.example.token_ids) for i, one in enumerate(made)}, config.micro_batch_tokens):
        batch = batch_of([made[i].example for i in rows], padding_id=policy.padding_id, device=policy.device)
        own = passed(policy.module, value_head, batch, temperature=config.temperature, with_entropies=True)
        with policy.reference() as frozen:
            reference_N = label_logprobs(
                frozen, batch.ids_BT, batch.trained_BT, temperature=config.temperature, chunk_labels=chunk_labels
            )
        assert own.entropies_N is not None
        sizes = [made[i].num_tokens for i in rows]
        for by_answer, values_N in zip(found, (own.logprobs_N, reference_N, own.values_N, own.entropies_N), strict=True):
            for i, part in zip(rows, values_N.split(sizes), strict=True):
                by_answer[i] = part
    return found


def by_length(lengths: Mapping[int, int], micro_batch_tokens: int) -> list[list[int]]:
    """Rows in micro-batches of like length. `lengths` by row."""
    rows = sorted(lengths, key=lambda i: lengths[i])
    cut = cut_by_tokens(range(len(rows)), [lengths[i] for i in rows], micro_batch_tokens)
    return [[rows[place] for place in micro] for micro in cut]
