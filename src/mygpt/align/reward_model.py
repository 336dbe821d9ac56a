"""A reward model: one number for an answer, learnt from which of two answers people, programs or judges preferred.

    -log sigmoid(r_chosen - r_rejected - margin)      a preference
    the same with p and 1 - p                         where the pair says how probable it is (cross-entropy with a soft label)
    Rao and Kupper, or 1/2 and 1/2                    a tie
    + centring (r_chosen + r_rejected)^2              rewards stay around 0, which differences alone leave open

A prompt is one element of a step, with all its comparisons: each distinct answer is read once, and each of its P pairs weighs 1 / P. The
reward is read at the answer's stop token, and normalised afterwards: answers of the held-out split, or of the training set, have mean 0 and
standard deviation 1, so that a KL coefficient means the same whatever the model.

Source     Ouyang et al. 2022, arXiv:2203.02155, equation 1 (1 / C(K, 2)); margins: Touvron et al. 2023, arXiv:2307.09288, equation 2;
           centring: Eisenstein et al. 2023, arXiv:2312.09244; normalisation: Stiennon et al. 2020, arXiv:2009.01325, section 3.4; ties: Rao
           and Kupper 1967, "Ties in paired-comparison experiments"
We differ  a prompt whose comparisons are not all there weighs as much as any other; no dropout; normalised on answers to the prompts of the
           pairs, not on samples of a policy, which need not exist yet
Dims       N answers   P pairs
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt

from mygpt.align.answers import usable_pairs
from mygpt.align.preference_groups import LLAMA_2_MARGINS, Group, groups_of, row_rewards
from mygpt.align.reward_quality import quality, scored_pairs, sentences
from mygpt.align.verdicts import is_tie
from mygpt.artifacts.dataset import Dataset, Preference
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import recipe
from mygpt.core.run import Run
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.methods import Method
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.heads import Opened
from mygpt.lm.inputs import window_tokens
from mygpt.training.activations import ForwardPass, decoder_pass, packed_rows_of
from mygpt.training.batches import Plan, plan_epoch
from mygpt.training.fit import Work, compared, foreseen, require_memory
from mygpt.training.forecast import Forecast
from mygpt.training.packing import keeps_apart, plan_packed_epoch
from mygpt.training.steps import Examples
from mygpt.training.tuning import (
    TuningConfig,
    blueprint_for,
    learnt,
    module_for,
    opened_for,
    publish_tuned,
    rate_at,
    tuning_steps,
    with_method,
)


class RewardModelConfig(TuningConfig):
    method: Method = LoRA()
    epochs: PositiveInt = 1  # a second one often helps a little, a third does not
    step_tokens: PositiveInt = 4096  # per update
    micro_batch_tokens: PositiveInt = 2048  # per forward pass; a prompt's answers are never parted
    max_example_tokens: PositiveInt = 512  # of a prompt with one answer
    drop_unusable: bool = False  # pairs that nothing can be learnt from are left out, instead of refused
    margins: Literal["llama_2_small", "llama_2_large"] | tuple[NonNegativeFloat, ...] = ()  # by a pair's margin 0, 1, 2 ...; none: all 0
    margin_per_score: NonNegativeFloat = 0.0  # for each point that the chosen answer scores higher, beside it
    tie_threshold: NonNegativeFloat = 0.0  # Rao-Kupper's ln theta: how near rewards of a tie are; 0: a tie is half a win for each
    centring: NonNegativeFloat = 0.01


@recipe
def reward_model(config: RewardModelConfig, *, model: Model, dataset: Dataset, run: Run) -> Adapter | Model:
    """Learn the split `train` of `dataset` (schema `preference`) and measure on `test`: an Adapter on `model`, or a new Model."""
    bare = blueprint_for("reward", model, config)
    groups, held_out = (_groups(bare, dataset.preferences(split), config, run, split=split) for split in ("train", "test"))
    forecast = _forecast(config, model, groups, order=run.random, home=run.home)
    run.note(f"Training needs {forecast.told()}.")
    opened = opened_for("reward", model, config, run=run)
    module = with_method(opened, config, run=run)
    padding_id = opened.tokenizer.pad_token_id
    packed = keeps_apart(module, [example for group in groups for example in group.examples], run=run)
    known = Examples([g.name for g in groups], num_tokens=[g.num_tokens for g in groups], num_trained=[1] * len(groups))
    with tuning_steps(_plan(groups, config, order=run.random, packed=packed), known, module=module, config=config, run=run) as steps:
        for step in steps:
            for numbers in step.micro_batches:
                some = [groups[i] for i in numbers]
                rewards_N, computed_tokens = row_rewards(module, some, packed=packed, padding_id=padding_id)
                loss = summed_group_loss(rewards_N, some, tie_threshold=config.tie_threshold, centring=config.centring) / step.num_trained
                loss.backward()
                step.add(loss, computed_tokens=computed_tokens)
            step.update(learning_rate=rate_at(step, config), max_grad_norm=config.max_grad_norm)

    split = "test" if held_out else "train"
    measured = held_out or groups
    rewards = all_rewards(module, measured, config, packed=packed, padding_id=padding_id)
    mean, std = mean_and_std(rewards, run)
    shown = quality(scored_pairs(measured, rewards), seed=run.seed_for("quality")) if held_out else None
    facts = {**learnt(module, opened, config, steps), **compared(forecast, steps, home=run.home)}
    facts |= {"normalised": {"mean": mean, "std": std, "on": split}, "held_out": shown}
    made = publish_tuned(module, opened, config, facts=facts, told=" ".join(sentences(shown)).rstrip(".") if shown else "", run=run)
    steps.checkpoints.clear()
    return made


def reward_model_forecast(config: RewardModelConfig, *, model: Model, dataset: Dataset, home: Path) -> dict[str, Any]:
    """What `reward_model` would do and need, said by `--dry-run`. No weight is loaded."""
    return rows_forecast(config, model, dataset.preferences("train"), home=home)


def rows_forecast(config: RewardModelConfig, model: Model, rows: Sequence[Preference], *, home: Path) -> dict[str, Any]:
    """The same of rows that are not a dataset yet."""
    groups = _groups(blueprint_for("reward", model, config), rows, config, None)
    return foreseen(_forecast(config, model, groups, order=Random, home=home), examples=len(groups))


def _forecast(
    config: RewardModelConfig, model: Model, groups: Sequence[Group], *, order: Callable[[str], Random], home: Path
) -> Forecast:
    """Of answers that share a row, which is found out when weights are there."""

    def shape_of(micro: Sequence[int]) -> tuple[int, ...]:
        lengths = [len(example.token_ids) for i in micro for example in groups[i].examples]
        return packed_rows_of(lengths)(range(len(lengths)))

    def work_of(config: RewardModelConfig) -> Work:
        forward = ForwardPass(decoder_pass, shape_of, logits_of=len)  # a number for each
        return Work(module_for("reward", model, config), _plan(groups, config, order=order, packed=True), known, forward)

    known = Examples((), num_tokens=[group.num_tokens for group in groups], num_trained=[1] * len(groups))
    return require_memory(config, work_of, home=home)


def _groups(
    opened: Opened, rows: Sequence[Preference], config: RewardModelConfig, run: Run | None, *, split: str = "train"
) -> list[Group]:
    if not rows and split != "train":
        return []
    pairs = usable_pairs(
        rows,
        ChatRenderer(opened.tokenizer),
        max_example_tokens=config.max_example_tokens,
        context_tokens=window_tokens(opened.module),
        drop_unusable=config.drop_unusable,
        run=run,
    )
    if run and split == "train":
        for text in unused([pair.row for pair in pairs], config):
            run.warn(text)
    margins = LLAMA_2_MARGINS[config.margins] if isinstance(config.margins, str) else config.margins
    return groups_of(pairs, margins=margins, margin_per_score=config.margin_per_score)


def unused(rows: Sequence[Preference], config: RewardModelConfig) -> Iterator[str]:
    """What is set and meets rows that it says nothing of."""
    decided = [row for row in rows if not is_tie(row)]
    without = [row for row in decided if row.margin is None]
    if config.margins and without:
        scored = any("score_margin" in row.facts for row in without) and not config.margin_per_score
        hint = " They have scores: `margin_per_score` makes margins of these." if scored else ""
        yield f"`margins` is set, and {len(without)} of {len(decided)} pairs have no margin: they are learnt as pairs of margin 0.{hint}"
    if config.margin_per_score and (unscored := sum("score_margin" not in row.facts for row in decided)):
        yield f"`margin_per_score` is set, and {unscored} of {len(decided)} pairs have no scores: these add no margin."
    if config.tie_threshold and len(decided) == len(rows):
        yield f"`tie_threshold` is set, and none of the {len(rows)} pairs is a tie: it acts as one margin for all of them."


def _plan(groups: Sequence[Group], config: RewardModelConfig, *, order: Callable[[str], Random], packed: bool) -> Plan:
    """Every prompt once an epoch."""
    plan: Plan = []
    for epoch in range(config.epochs):
        own = order(f"order/{epoch}")
        if packed:
            sizes, most = [g.num_tokens for g in groups], config.micro_batch_tokens
            plan += plan_packed_epoch(sizes, step_tokens=config.step_tokens, pack_tokens=most, order=own)
        else:
            budgets = {"step_tokens": config.step_tokens, "micro_batch_tokens": config.micro_batch_tokens}
            plan += plan_epoch([g.padded_tokens for g in groups], **budgets, order=own)
    return plan


# -- the loss ----------------------------------------------------------------------------------------------------------------


def summed_group_loss(
    rewards_N: torch.Tensor, groups: Sequence[Group], *, tie_threshold: float = 0.0, centring: float = 0.0
) -> torch.Tensor:
    """A scalar in nats: the sum over groups of the mean over their pairs. `rewards_N`: of all their answers, one group after another."""
    losses, first = [], 0
    for group in groups:
        own_K = rewards_N[first : (first := first + len(group.examples))]
        verdicts = group.verdicts
        chosen_P, rejected_P = own_K[[v.chosen for v in verdicts]], own_K[[v.rejected for v in verdicts]]
        losses_P = preference_losses(
            chosen_P - rejected_P,
            margins_P=own_K.new_tensor([v.margin for v in verdicts]),
            probabilities_P=own_K.new_tensor([v.probability for v in verdicts]),
            is_tie_P=torch.tensor([v.is_tie for v in verdicts], device=own_K.device),
            tie_threshold=tie_threshold,
        )
        losses.append((losses_P + centring * (chosen_P + rejected_P) ** 2).mean())
    return torch.stack(losses).sum()


def preference_losses(
    apart_P: torch.Tensor,
    *,
    margins_P: torch.Tensor,
    probabilities_P: torch.Tensor,
    is_tie_P: torch.Tensor,
    tie_threshold: float = 0.0,
) -> torch.Tensor:
    """(P) in nats. `apart_P`: reward of the chosen answer less that of the rejected one."""
    beyond_P = margins_P + tie_threshold
    won_P, lost_P = F.logsigmoid(apart_P - beyond_P), F.logsigmoid(-apart_P + margins_P - tie_threshold)
    decided_P = -(probabilities_P * won_P + (1 - probabilities_P) * lost_P)
    return torch.where(is_tie_P, tie_losses(apart_P, tie_threshold), decided_P)


def tie_losses(apart_P: torch.Tensor, tie_threshold: float) -> torch.Tensor:
    """(P) -log P(tie): with a threshold (theta^2 - 1) sigmoid(apart - ln theta) sigmoid(-apart - ln theta); at 0 half a win for each."""
    if tie_threshold == 0:
        return -(F.logsigmoid(apart_P) + F.logsigmoid(-apart_P)) / 2
    ln_theta_squared_less_1 = 2 * tie_threshold + math.log(-math.expm1(-2 * tie_threshold))
    return -(ln_theta_squared_less_1 + F.logsigmoid(apart_P - tie_threshold) + F.logsigmoid(-apart_P - tie_threshold))


# -- after training ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def all_rewards(
    module: Any, groups: Sequence[Group], config: RewardModelConfig, *, packed: bool, padding_id: int
) -> list[list[float]]:
    """Of each group's answers, as the head gives them."""
    found: list[list[float]] = []
    for start in range(0, len(groups), 8):
        some = groups[start : start + 8]
        rewards = row_rewards(module, some, packed=packed, padding_id=padding_id)[0].tolist()
        for group in some:
            found.append(rewards[: len(group.examples)])
            rewards = rewards[len(group.examples) :]
    return found


def mean_and_std(rewards: Sequence[Sequence[float]], run: Run) -> tuple[float, float]:
    """Over all answers; a model that gives every answer the same is left as it is, said aloud."""
    values_N = torch.tensor([value for own in rewards for value in own], dtype=torch.float64)
    mean, std = float(values_N.mean()), float(values_N.std(unbiased=False))
    if std == 0:
        run.warn(f"Every answer has the reward {mean:.4f}: nothing was learnt that tells them apart.")
        return mean, 1.0
    return mean, std
