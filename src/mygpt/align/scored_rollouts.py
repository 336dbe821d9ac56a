"""What the methods without a critic share: their settings, the order of the prompts, answers with their rewards, and what is watched.

    prompts = prompts_of(dataset, policy, config)
    plan, known = rollout_plan(len(prompts), config, run=run)          `config.updates` steps belong to one rollout
    scored = scored_rollouts(sample, prompts, reward, config, ...)     answers to the next prompts, and what each is worth
    micro_batches = cut(step, known, scored, learnt_rows, ...)         only what has a gradient is computed
    watched.add(...); watched.vitals(...)                              one row of figures after each rollout

Rows are numbered through the whole training: those of rollout n are n * answers to (n + 1) * answers - 1.

Source     groups without spread give way to other prompts: Yu et al. 2025, arXiv:2503.14476 (DAPO), section 3.2
We differ  a bounded number of draws: a policy that is always right would otherwise be asked for ever
Dims       P prompts of a rollout   G answers of a prompt
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from mygpt.align.group_advantages import has_spread
from mygpt.align.policy import Policy
from mygpt.align.policy_losses import Surrogate, approx_kl, ratios_of
from mygpt.align.reward_choice import NumericChoice, RewardChoice
from mygpt.align.rollouts import Rollout, Sampler, tell_sampler_gap
from mygpt.align.shared_prompts import TREE_TOKENS, Tree, answer_logprobs, packs_trees, planted, prompt_ids, takes_trees, tree_batch
from mygpt.align.vitals import Vitals, flat_share, reward_per_token
from mygpt.align.watch import Watch, WatchConfig
from mygpt.artifacts.dataset import Conversation, Dataset
from mygpt.core.errors import Refused, UsageError
from mygpt.core.run import Run
from mygpt.infer.rewards import IdentifiedReward, Reward, rewards_of
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.methods import Method
from mygpt.training.batches import Plan
from mygpt.training.losses import chunk_labels_for
from mygpt.training.steps import Examples, Step
from mygpt.training.tuning import TuningConfig

_WATCHED = 8  # one answer in so many has its KL measured where the loss does not need it


class RolloutConfig(TuningConfig):
    method: Method = LoRA()
    learning_rate: PositiveFloat | None = None  # at its peak; None: a fifth of the method's own
    epochs: PositiveInt = 1  # times each prompt is asked
    max_example_tokens: PositiveInt = 1024  # of a prompt and its answer
    prompts_per_rollout: PositiveInt = 8
    samples: PositiveInt = 8  # answers to each prompt
    max_answer_tokens: PositiveInt = 256
    temperature: PositiveFloat = 1.0
    passes: PositiveInt = 1  # over the answers of a rollout
    updates_per_pass: PositiveInt = 1
    resample: NonNegativeInt = 0  # draws of other prompts in the place of groups without spread
    reward: RewardChoice = NumericChoice()
    length_penalty: float = 0.0  # off an answer's reward, for each of its tokens; below 0 longer answers gain
    missing_stop_penalty: NonNegativeFloat = 0.0  # off the reward of an answer that did not end by itself
    watch: WatchConfig = WatchConfig()  # figures beside the training's own, and the doctor

    @property
    def updates(self) -> int:
        """Of one rollout."""
        return self.passes * self.updates_per_pass

    @property
    def answers(self) -> int:
        """Of one rollout."""
        return self.prompts_per_rollout * self.samples


C = TypeVar("C", bound=RolloutConfig)


def with_rate(config: C, *, run: Run) -> C:
    """Rewards are noisier than labels: what is usual for labels is five times too fast for them."""
    if config.learning_rate is not None:
        return config
    rate = config.method.learning_rate / 5
    run.note(f"Learning rate {rate:g}, a fifth of the usual one of `method={config.method.name}`.")
    return config.model_copy(update={"learning_rate": rate})


# -- prompts and plan --------------------------------------------------------------------------------------------------------


def prompts_of(dataset: Dataset, policy: Policy, config: RolloutConfig) -> list[Conversation]:
    """The split `train`. Raises Refused where there is none, or where prompt and answer do not fit."""
    prompts = dataset.split("train")
    if not prompts:
        raise Refused(f"{dataset.id} has no prompts in the split `train`.", fix="Name a dataset of conversations.")
    lengths = [len(policy.renderer.prompt(prompt)) for prompt in prompts]
    allowed = min(config.max_example_tokens, policy.context_tokens or config.max_example_tokens) - config.max_answer_tokens
    if too_long := sum(length > allowed for length in lengths):
        raise Refused(
            f"{too_long} of {len(prompts)} prompts have more than {allowed} tokens (longest: {max(lengths)}), which leaves no room for "
            f"answers of {config.max_answer_tokens}.",
            fix="Set `max_answer_tokens` lower, `max_example_tokens` higher (up to the model's window), or leave those prompts out.",
        )
    return prompts


def rollout_plan(num_prompts: int, config: RolloutConfig, *, run: Run) -> tuple[Plan, Examples]:
    """Every prompt is asked at least `epochs` times; an update learns from all answers to some of a rollout's prompts."""
    if config.updates_per_pass > config.prompts_per_rollout:
        what = f"A rollout of {config.prompts_per_rollout} prompts cannot be learnt from in {config.updates_per_pass} updates a pass."
        raise UsageError(what, fix="Set `updates_per_pass` lower, or `prompts_per_rollout` higher.")
    plan: Plan = []
    num_rollouts = -(-config.epochs * num_prompts // config.prompts_per_rollout)
    for number in range(num_rollouts):
        order = run.random(f"updates/{number}")
        for _ in range(config.passes):
            groups = list(range(config.prompts_per_rollout))
            if config.updates_per_pass > 1:
                order.shuffle(groups)
            for part in range(config.updates_per_pass):
                own = groups[part :: config.updates_per_pass]
                first = number * config.answers
                plan.append([[first + g * config.samples + k for g in own for k in range(config.samples)]])
    total = num_rollouts * config.answers
    return plan, Examples([""] * total, [0] * total, [0] * total)


def next_prompts(prompts: Sequence[Conversation], count: int, memory: dict[str, Any], *, run: Run) -> list[Conversation]:
    """Each once, in a new order every time round; `memory["asked"]` says how many there were."""
    found: list[Conversation] = []
    while len(found) < count:
        epoch, place = divmod(memory["asked"], len(prompts))
        order = list(range(len(prompts)))
        run.random(f"prompts/{epoch}").shuffle(order)
        taken = order[place : place + count - len(found)]
        found += [prompts[i] for i in taken]
        memory["asked"] += len(taken)
    return found


# -- answers and what they are worth -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    made: dict[int, Rollout]  # by number
    rewards_PG: torch.Tensor  # float32, on the CPU, as they were given
    num_flat: int  # groups without spread, of all that were drawn
    penalties_PG: torch.Tensor | float = 0.0  # off the rewards

    @property
    def worth_PG(self) -> torch.Tensor:
        """What is learnt from."""
        return self.rewards_PG - self.penalties_PG

    def by_row(self, values_PG: torch.Tensor) -> dict[int, float]:
        return dict(zip(self.made, values_PG.flatten().tolist(), strict=True))

    @property
    def worth_of(self) -> dict[int, float]:
        return self.by_row(self.worth_PG)


def scored_rollouts(
    sample: Sampler,
    prompts: Sequence[Conversation],
    reward: Reward,
    config: RolloutConfig,
    *,
    number: int,
    memory: dict[str, Any],
    run: Run,
) -> Scored:
    """Rollout `number` (from 0). Groups without spread are replaced up to `resample` times by other prompts'."""
    spread: list[tuple[list[Rollout], torch.Tensor, torch.Tensor]] = []
    flat: list[tuple[list[Rollout], torch.Tensor, torch.Tensor]] = []
    for draw in range(1 + config.resample):
        missing = config.prompts_per_rollout - len(spread)
        if not missing:
            break
        asked = next_prompts(prompts, missing, memory, run=run)
        made = sample(asked, run.seed_for(f"rollout/{number}/{draw}"))
        rewards = rewards_of(reward, [one.prompt for one in made], [one.answer for one in made])
        rewards_PG = torch.tensor(rewards).view(missing, config.samples)
        penalties_PG = torch.tensor([penalty_of(one, config) for one in made]).view(missing, config.samples)
        for p, differs in enumerate(has_spread(rewards_PG - penalties_PG).tolist()):
            is_spread = differs or config.samples == 1  # then there is nothing to differ from
            group = (made[p * config.samples : (p + 1) * config.samples], rewards_PG[p], penalties_PG[p])
            (spread if is_spread else flat).append(group)
    groups, rewards_G, penalties_G = zip(*(spread + flat)[: config.prompts_per_rollout], strict=True)
    rows = dict(enumerate((one for group in groups for one in group), start=number * config.answers))
    return Scored(rows, torch.stack(rewards_G), len(flat), torch.stack(penalties_G))


def penalty_of(made: Rollout, config: RolloutConfig) -> float:
    return config.length_penalty * made.num_tokens + config.missing_stop_penalty * (not made.is_finished)


@torch.no_grad()
def logprobs_of_rows(module: Any, policy: Policy, made: Mapping[int, Rollout], config: RolloutConfig) -> dict[int, torch.Tensor]:
    """Of the tokens of each answer, by the training's own forward pass."""
    found: dict[int, torch.Tensor] = {}
    chunk_labels = chunk_labels_for(module)
    for trees in _planted(list(made), made, module, config):
        batch = tree_batch(trees, made, policy)
        found |= batch.each(answer_logprobs(module, batch, temperature=config.temperature, chunk_labels=chunk_labels))
    return found


def cut(step: Step, known: Examples, scored: Scored, learnt: Set[int], policy: Policy, config: RolloutConfig) -> list[list[Tree]]:
    """The step's micro-batches of `learnt`. Its other rows belong to the last, and no tree holds them: it may be empty."""
    idle = [i for i in step.rows if i not in learnt]
    micro_batches = _planted(sorted(learnt), scored.made, policy.module, config) or [[]]
    names, num_tokens, num_trained = (_list(part) for part in (known.names, known.num_tokens, known.num_trained))
    for i in step.rows:
        names[i] = f"{i % config.samples + 1} to {scored.made[i].prompt.id or scored.made[i].prompt.question[:40]}"
        num_tokens[i] = num_trained[i] = 0
    for tree in (tree for micro in micro_batches for tree in micro):
        for i in tree:
            num_tokens[i] = num_trained[i] = scored.made[i].num_tokens
        num_tokens[tree[0]] = len(scored.made[tree[0]].example.token_ids)  # the prompt is computed once
    rows = [[i for tree in micro for i in tree] for micro in micro_batches]
    rows[-1] += idle
    step.cut(rows)
    return micro_batches


def _planted(rows: Sequence[int], made: Mapping[int, Rollout], module: Any, config: RolloutConfig) -> list[list[Tree]]:
    tokens = config.micro_batch_tokens
    tree_tokens = max(TREE_TOKENS, tokens) if packs_trees(module) else TREE_TOKENS
    return planted(rows, made, shares=takes_trees(module), micro_batch_tokens=tokens, tree_tokens=tree_tokens)


def _list(part: Sequence[Any]) -> list[Any]:
    assert isinstance(part, list)
    return part


# -- what is watched ---------------------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """Of the updates of one rollout. `whole_answers`: the ratio that is clipped is an answer's, not a token's."""

    whole_answers: bool = False
    num_tokens: int = 0
    num_ratios: int = 0
    num_clipped: int = 0  # of the ratios
    approx_kl: float = 0.0
    ratio_max: float = 0.0
    grad_norm: float = 0.0
    old: dict[int, torch.Tensor] = field(default_factory=dict)  # log-probabilities as they were when it was sampled

    def look(
        self, scored: Scored, learnt: Set[int], policy: Policy, config: RolloutConfig, *, reference: Mapping[int, torch.Tensor] | None
    ) -> None:
        """Before the first update: the rows whose KL is told and that the update, which learns from `learnt`, will not meet."""
        unmet = {i: scored.made[i] for i in _with_kl(scored, reference) if i not in self.old and i not in learnt}
        self.old |= logprobs_of_rows(policy.module, policy, unmet, config)

    def add(self, surrogate: Surrogate, logprobs_N: torch.Tensor, old_logprobs_N: torch.Tensor) -> None:
        """One micro-batch: how far each token moved, and which ratios of `surrogate` were clipped."""
        self.num_tokens += len(logprobs_N)
        self.num_ratios += surrogate.is_clipped.numel()
        self.num_clipped += int(surrogate.is_clipped.sum())
        self.approx_kl += float(approx_kl(logprobs_N, old_logprobs_N).sum())
        self.ratio_max = max(self.ratio_max, float(ratios_of(logprobs_N.detach(), old_logprobs_N).max()))

    def vitals(
        self,
        number: int,
        scored: Scored,
        policy: Policy,
        config: RolloutConfig,
        *,
        reference: Mapping[int, torch.Tensor] | None = None,
        coefficient: float | None = None,
    ) -> Vitals:
        """After the updates of rollout `number` (from 0). Without `reference` (log-probabilities of the frozen model) a few are made."""
        answers, old = list(scored.made.values()), self.old
        if reference is None:
            with policy.reference() as frozen:
                reference = logprobs_of_rows(frozen, policy, {i: scored.made[i] for i in _with_kl(scored, None)}, config)
        gone = [float((old[i] - reference[i]).sum()) for i in reference]
        return Vitals(
            rollout=number + 1,
            reward=float(scored.rewards_PG.mean()),
            reward_std=float(scored.rewards_PG.std(correction=0)),
            kl=sum(gone) / len(gone),
            entropy=-float(torch.cat([_sampled_logprobs(i, one, old, config) for i, one in scored.made.items()]).mean()),
            length=sum(one.num_tokens for one in answers) / len(answers),
            finished_share=sum(one.is_finished for one in answers) / len(answers),
            duplicate_share=1 - len({(prompt_ids(one), one.answer.token_ids) for one in answers}) / len(answers),
            kl_coefficient=coefficient,
            **{"answer_clip_share" if self.whole_answers else "clip_share": self.num_clipped / max(self.num_ratios, 1)},
            ratio_max=self.ratio_max,
            approx_kl=self.approx_kl / max(self.num_tokens, 1),
            grad_norm=self.grad_norm,
            reward_per_token=reward_per_token(scored.rewards_PG.flatten().tolist(), [one.num_tokens for one in answers]),
            flat_share=flat_share(scored.worth_PG.flatten().tolist(), config.samples),
        )


def remember(
    vitals: Vitals, scored: Scored, watched: Watched, config: RolloutConfig, memory: dict[str, Any], *, watch: Watch, run: Run
) -> None:
    """Logged, shown to the doctor, and kept for the facts of what is made."""
    vitals = watch.after(vitals, list(scored.made.values()))
    memory["vitals"].append({name: round(value, 5) for name, value in vitals.logged().items()})
    memory["flat"] += scored.num_flat
    tell_sampler_gap(scored.made, watched.old, temperature=config.temperature, run=run)


def told(memory: Mapping[str, Any], reward: IdentifiedReward) -> dict[str, Any]:
    """Facts: what was learnt from, and what every rollout was like."""
    rewards = [row["reward"] for row in memory["vitals"]]
    some = max(1, len(rewards) // 5)
    first, last = (sum(part) / some for part in (rewards[:some], rewards[-some:]))
    sentence = f"Mean reward of sampled answers: {first:.3f} in the first {some} of {len(rewards)} rollouts, {last:.3f} in the last {some}."
    facts = {"reward": reward.identity, "prompts_asked": memory["asked"], "flat_groups": memory["flat"], "vitals": memory["vitals"]}
    return {**facts, "sentences": [f"{sentence} On prompts that were learnt from: measure on others."]}


def _with_kl(scored: Scored, reference: Mapping[int, torch.Tensor] | None) -> list[int]:
    """Rows whose KL is told: all where the loss has `reference`, else one in so many."""
    return list(scored.made)[::_WATCHED] if reference is None else list(reference)


def _sampled_logprobs(i: int, made: Rollout, old: Mapping[int, torch.Tensor], config: RolloutConfig) -> torch.Tensor:
    """What its own sampling gave each token: their mean is the entropy's. The engine's are those of temperature 1."""
    if i in old:
        return old[i].float().cpu()
    return torch.tensor(made.answer.logprobs if config.temperature == 1 else ())
