"""KTO: learn from single answers that somebody called good or bad; no pairs are needed.

    good answer    weight (1 - s(beta (r - z)))      r = log pi(answer) - log ref(answer)      s: the sigmoid
    bad answer     weight (1 - s(beta (z - r)))
    z              how far the policy has moved: max(0, mean of r over the step's prompts, each with another one's answer), without gradient

Answers come from pairs (each gives a good and a bad one), or from conversations with the fact `label`, which is `good` or `bad`. A pair
whose chosen answer is the better with probability p counts 2 p - 1 times, one of p below 1/2 the other way round: that is the loss expected
over which of the two is good, but for a constant. Of ties, and of p = 1/2, nothing is left: such pairs are left out and counted.

Source     Ethayarajh et al. 2024, arXiv:2402.01306, equations 7 and 8; the range of the weights: its section 4.2; without `shift`:
           D'Oosterlinck et al. 2024, arXiv:2408.06266, equation 7, of single answers
We differ  z is of the whole step, however it is split into micro-batches, and never of a prompt with an answer of its own: where a step has
           no other prompt, the answer is one of the training set; without weights given, the frequent kind's is lowered so that both kinds
           count alike; no dropout; AdamW
Cost       one forward and one backward pass over each answer with its prompt; a forward pass of the reference; one more of both for z
Dims       N training answers   S answers of a step   A answers of a micro-batch   n held-out answers
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from random import Random
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveFloat

from mygpt.align.answer_rows import AnswerRows, answer_logprobs, single_rows
from mygpt.align.answers import rendered_answer, usable_pairs
from mygpt.align.pair_tuning import GentleConfig, by_length, plan_steps, publish_aligned, require_known_head, with_gentle_rate
from mygpt.align.policy import Policy, copy_bytes, open_policy, policy_blueprint
from mygpt.align.preference_measures import measures, told
from mygpt.align.verdicts import probability_of
from mygpt.artifacts.dataset import Conversation, Dataset, Message
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import recipe
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.lm.chat import Rendered
from mygpt.lm.load import preferred_device
from mygpt.metrics.roc_auc import roc_auc
from mygpt.training.activations import ForwardPass, decoder_pass, rows_of
from mygpt.training.fit import Work, foreseen, require_memory
from mygpt.training.forecast import Forecast
from mygpt.training.losses import chunk_labels_for
from mygpt.training.steps import Examples
from mygpt.training.tuning import rate_at, tuning_steps

_VERDICTS = {"good": True, "bad": False}


class KTOConfig(GentleConfig):
    beta: PositiveFloat = 0.1
    desirable_weight: PositiveFloat | None = None  # of good answers; None: so that both kinds count alike
    undesirable_weight: PositiveFloat | None = None
    step_answers: Annotated[int, Field(ge=2)] = 32  # per update
    shift: bool = True  # z is taken off; false: APO-zero of single answers, whose z is 0


@dataclass(frozen=True)
class Judged:
    prompt: tuple[Message, ...]
    answer: str
    is_good: bool
    example: Rendered
    name: str
    weight: float = 1.0  # how sure it is: 2 p - 1


@dataclass(frozen=True)
class AnswerWork:
    """How answers are computed: one a row."""

    policy: Policy
    allowed_tokens: int
    chunk_labels: int
    micro_batch_tokens: int

    def rows(self, examples: Sequence[Rendered]) -> AnswerRows:
        return single_rows(examples, padding_id=self.policy.padding_id, device=self.policy.device)

    def answers(self, module: Any, rows: AnswerRows) -> torch.Tensor:
        """(A) float32, with gradients."""
        return answer_logprobs(module, rows, chunk_labels=self.chunk_labels)

    @torch.no_grad()
    def logprobs(self, module: Any, examples: Sequence[Rendered], *, run: Run | None = None) -> torch.Tensor:
        """(n) float32, without. With a run, shows progress."""

        def of(numbers: Sequence[int]) -> torch.Tensor:
            return self.answers(module, self.rows([examples[i] for i in numbers]))

        return by_length(of, [len(e.token_ids) for e in examples], budget_tokens=self.micro_batch_tokens, run=run)

    def exchanged(self, step: Sequence[Judged], train: Sequence[Judged]) -> list[Rendered]:
        """Each prompt with the answer to the next other one of the step, else of the training set, cut to what a row may hold."""
        made = []
        for i, row in enumerate(step):
            others = chain(step[i + 1 :], step[:i], train)
            answer = next((other.answer for other in others if other.prompt != row.prompt), None)
            if answer is not None:
                whole = rendered_answer(self.policy.renderer, row.prompt, answer)
                cut = slice(self.allowed_tokens)
                made.append(replace(whole, token_ids=whole.token_ids[cut], trained=whole.trained[cut]))
        return made

    def moved(self, step: Sequence[Judged], train: Sequence[Judged]) -> float:
        """z, in nats; 0 where all answers are to one prompt."""
        examples = self.exchanged(step, train)
        if not examples:
            return 0.0
        own_S = self.logprobs(self.policy.module, examples)
        with self.policy.reference() as frozen:
            reference_S = self.logprobs(frozen, examples)
        return max(0.0, float((own_S - reference_S).mean()))


@recipe
def kto(config: KTOConfig, *, model: Model, dataset: Dataset, reference: Model | None = None, run: Run) -> Adapter | Model:
    """Learn the answers in the split `train` of `dataset` and measure on `test`: an Adapter on `model`, or a new Model.

    `reference`: what to stay near, an ancestor of `model`; without, `model` as it is.
    """
    config = with_gentle_rate(config, run=run)
    bare = policy_blueprint(model, config)
    train, held_out = (judged(dataset, split, bare, config, run=run) for split in ("train", "test"))
    forecast = _forecast(config, model, train, reference=reference, order=run.random, home=run.home)
    run.note(f"Training needs {forecast.told()}.")
    policy = open_policy(model, config, reference=reference, run=run)
    module = policy.module
    if len({row.prompt for row in train}) == 1:
        run.warn("All answers are to one prompt, so z, which takes answers to others, is 0: only the answers themselves are compared.")
    is_good_N = torch.tensor([row.is_good for row in train], device=policy.device)
    weight_N = torch.tensor([row.weight for row in train], device=policy.device)
    good, bad = float(weight_N[is_good_N].sum()), float(weight_N[~is_good_N].sum())
    good_weight, bad_weight = weights(config, good=good, bad=bad, run=run)
    require_known_head(policy, [row.example for row in train])
    work = AnswerWork(policy, allowed_tokens(policy, config), chunk_labels_for(module), config.micro_batch_tokens)
    with policy.reference() as frozen:
        reference_N = work.logprobs(frozen, [row.example for row in train], run=run)
        reference_n = work.logprobs(frozen, [row.example for row in held_out], run=run) if held_out else None
    before = held_out_measures(work, held_out, reference_n, in_pairs=dataset.schema == "preference", run=run)

    lengths = [len(row.example.token_ids) for row in train]
    plan = plan_steps(lengths, config, step_size=config.step_answers, order=run.random)
    known = Examples([row.name for row in train], num_tokens=lengths, num_trained=[sum(row.example.trained) for row in train])
    with tuning_steps(plan, known, module=module, config=config, run=run) as steps:
        for step in steps:
            z = work.moved([train[i] for i in step.rows], train) if config.shift else 0.0
            for numbers in step.micro_batches:
                rows = work.rows([train[i].example for i in numbers])
                ratio_A = work.answers(module, rows) - reference_N[numbers]
                good_A = is_good_N[numbers]
                weight_A = torch.where(good_A, good_weight, bad_weight) * weight_N[numbers]
                loss = (weight_A * kto_loss(ratio_A, good_A, z, beta=config.beta)).sum() / len(step.rows)
                loss.backward()
                step.add(loss, computed_tokens=rows.num_computed)
            step.update(learning_rate=rate_at(step, config), max_grad_norm=config.max_grad_norm)

    after = held_out_measures(work, held_out, reference_n, in_pairs=dataset.schema == "preference", run=run)
    say = told if dataset.schema == "preference" else told_of_labels
    answers = {"good": int(is_good_N.sum()), "bad": int((~is_good_N).sum())}
    facts = {"answers": answers, "weights": {"good": good_weight, "bad": bad_weight}}
    shown: dict[str, Any] = {"before": before, "after": after, "told": say(before, after)}
    return publish_aligned(policy, config, steps, **shown, forecast=forecast, facts=facts, run=run)


def kto_forecast(
    config: KTOConfig, *, model: Model, dataset: Dataset, reference: Model | None = None, home: Path
) -> dict[str, Any]:
    """What `kto` would do and need, said by `--dry-run`. No weight is loaded."""
    train = judged(dataset, "train", policy_blueprint(model, config), config)
    return foreseen(_forecast(config, model, train, reference=reference, order=Random, home=home), examples=len(train))


def _forecast(
    config: KTOConfig,
    model: Model,
    train: Sequence[Judged],
    *,
    reference: Model | None,
    order: Callable[[str], Random],
    home: Path,
) -> Forecast:
    lengths = [len(row.example.token_ids) for row in train]
    known = Examples((), num_tokens=lengths, num_trained=[sum(row.example.trained) for row in train])

    def work_of(config: KTOConfig) -> Work:
        module = policy_blueprint(model, config).module
        forward = ForwardPass(decoder_pass, rows_of(lengths), most_labels=chunk_labels_for(module, device=preferred_device()))
        plan = plan_steps(lengths, config, step_size=config.step_answers, order=order)
        return Work(module, plan, known, forward, copy_bytes(model, config, reference))

    return require_memory(config, work_of, home=home)


def kto_loss(ratio_A: torch.Tensor, is_good_A: torch.Tensor, z: float, *, beta: float) -> torch.Tensor:
    """(A), from 0 to 1, of log pi - log ref of each answer, before weights."""
    return 1 - (beta * torch.where(is_good_A, ratio_A - z, z - ratio_A)).sigmoid()


def weights(config: KTOConfig, *, good: float, bad: float, run: Run) -> tuple[float, float]:
    """Of good and bad answers, of which there are so many, sure as they are. Warns where the kinds count more unequally than the paper
    advises. Raises Refused where one is missing."""
    if not good or not bad:
        raise Refused(
            f"All {good + bad:g} answers are called {'good' if good else 'bad'}: there is nothing to tell apart.",
            fix="Give answers of both kinds; good ones alone are learnt by `mygpt finetune sft`.",
        )
    rarer = min(good, bad)
    good_weight, bad_weight = config.desirable_weight or rarer / good, config.undesirable_weight or rarer / bad
    if not 1 <= (share := good_weight * good / (bad_weight * bad)) <= 4 / 3 + 1e-6 and not abs(share - 1) < 1e-6:
        run.warn(f"Good answers count {share:.2f} times as much as bad ones; the paper advises 1 to 1.33 (`desirable_weight`).")
    return good_weight, bad_weight


def allowed_tokens(policy: Policy, config: KTOConfig) -> int:
    return min(config.max_example_tokens, policy.context_tokens or config.max_example_tokens)


# -- rows -------------------------------------------------------------------------------------------------------------------


def judged(dataset: Dataset, split: str, policy: Policy, config: KTOConfig, *, run: Run | None = None) -> list[Judged]:
    """Of pairs the better one first. A split `test` may be missing."""
    if dataset.schema != "preference":
        rows = dataset.split(split)
        return [] if split == "test" and not rows else judged_conversations(rows, policy, config, run=run)
    compared = dataset.preferences(split)
    if split == "test" and not compared:
        return []
    limits: Any = {"max_example_tokens": config.max_example_tokens, "context_tokens": policy.context_tokens}
    made = []
    pairs = usable_pairs(compared, policy.renderer, **limits, drop_unusable=config.drop_unusable, run=run)
    for number, pair in enumerate(pairs):
        name = f"{number} ({pair.row.id})" if pair.row.id else f"{number}"
        sure = 2 * probability_of(pair.row) - 1
        both = [(pair.row.chosen, pair.chosen, f"{name}, chosen"), (pair.row.rejected, pair.rejected, f"{name}, rejected")]
        for is_good, (answer, example, called) in zip((True, False), both if sure > 0 else reversed(both), strict=True):
            if sure:
                made.append(Judged(pair.row.prompt, answer, is_good, example, called, abs(sure)))
    if not made and split == "train":
        raise Refused(f"All {len(pairs)} pairs to learn from are ties.", fix="Give pairs of which one answer is the better one.")
    if run and (ties := len(pairs) - len(made) // 2):
        run.warn(f"{ties} of {len(pairs)} pairs of the split `{split}` are ties, of which KTO learns nothing: they are left out.")
    return made


def judged_conversations(
    rows: Sequence[Conversation], policy: Policy, config: KTOConfig, *, run: Run | None = None
) -> list[Judged]:
    """Raises Refused where an answer is empty, too long or has no label; with `drop_unusable` such rows are left out and counted."""
    made, faults, longest, allowed = [], Counter[str](), 0, allowed_tokens(policy, config)
    for number, row in enumerate(rows):
        name = f"{number} ({row.id})" if row.id else f"{number}"
        label = row.facts.get("label", "")
        fault = f"labelled {label!r}" if label not in _VERDICTS else "without an answer" if not row.answer.strip() else ""
        if not fault:
            example = rendered_answer(policy.renderer, row.prompt, row.answer)
            if len(example.token_ids) <= allowed:
                made.append(Judged(row.prompt, row.answer, _VERDICTS[label], example, name))
                continue
            fault, longest = f"longer than {allowed} tokens", max(longest, len(example.token_ids))
        faults[fault] += 1
    said = f"{sum(faults.values())} of {len(rows)} answers cannot be learnt from ({', '.join(f'{n} {what}' for what, n in faults.items())})"
    if faults and not config.drop_unusable:
        fix = "Give each conversation the fact `label`, `good` or `bad`, or leave such rows out with `--set drop_unusable=true`."
        raise Refused(f"{said}{f'; the longest has {longest}' if longest else ''}.", fix=fix)
    if not made:
        raise Refused(f"{said}: none are left." if rows else "The training set has no answers.", fix="Give answers called good and bad.")
    if run and faults:
        run.warn(f"{said}: they are left out.")
    return made


# -- held-out answers -------------------------------------------------------------------------------------------------------


def held_out_measures(
    work: AnswerWork, rows: Sequence[Judged], reference_n: torch.Tensor | None, *, in_pairs: bool, run: Run
) -> dict[str, Any] | None:
    """None without rows. `in_pairs`: chosen and rejected in turn, measured as every loss of pairs."""
    if reference_n is None:
        return None
    logprobs_n = work.logprobs(work.policy.module, [row.example for row in rows], run=run)
    if in_pairs:
        tokens_n = torch.tensor([sum(row.example.trained) for row in rows], device=logprobs_n.device)
        return measures(logprobs_n.view(-1, 2), tokens_n.view(-1, 2), reference_n.view(-1, 2))
    is_good_n = torch.tensor([row.is_good for row in rows], device=logprobs_n.device)
    parts = {"good": is_good_n, "bad": ~is_good_n}
    found: dict[str, Any] = {"answers": len(rows)}
    found |= {name: float(logprobs_n[part_n].double().mean()) if part_n.any() else None for name, part_n in parts.items()}
    if is_good_n.all() or not is_good_n.any():
        return found | {"reward_auc": None}
    rewards_n = logprobs_n - reference_n
    area = roc_auc(rewards_n[is_good_n].tolist(), rewards_n[~is_good_n].tolist())
    return found | {"reward_auc": area.estimate, "reward_auc_interval": [area.low, area.high]}


def told_of_labels(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    """In words; "" where nothing was measured."""
    if before is None or after is None:
        return ""
    said = [
        f"log-probability of {name} answers {before[name]:.1f} before and {after[name]:.1f} after"
        for name in ("good", "bad")
        if after[name] is not None
    ]
    if after["reward_auc"] is not None:
        low, high = after["reward_auc_interval"]
        area = f"{after['reward_auc']:.2f} (95 % interval {low:.2f} to {high:.2f})"
        said.insert(0, f"a good answer has a higher reward than a bad one with probability {area}")
    return f"on {after['answers']} answers, {'; '.join(said)}"
