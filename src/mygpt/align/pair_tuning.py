"""What the recipes that learn from pairs share: settings, the pairs made ready, the plan of the steps, and how the result is kept.

    work = pair_work(config, model=model, dataset=dataset, run=run)     a policy and its pairs, checked, and how they become rows
    work.rows(numbers)                                                  pairs of the training set as a batch, in one row each where possible
    work.answers(module, rows)                                          (P, 2), log-probabilities of chosen and rejected, with gradients
    work.logprobs(module, pairs)                                        (n, 2), of any number of pairs, without
    work.measured(module, reference_n2)                                 how well the held-out pairs are told apart (`preference_measures`)

Dims  P pairs of a micro-batch   n pairs
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import torch
from pydantic import PositiveInt

from mygpt.align.answer_rows import (
    AnswerRows,
    answer_logprobs,
    packs_pairs,
    row_tokens,
    separate_rows,
    shared_pass,
    shared_rows,
    takes_shared_rows,
)
from mygpt.align.answers import Pair, usable_pairs
from mygpt.align.policy import Policy, copy_bytes, open_policy, policy_blueprint
from mygpt.align.preference_measures import measures
from mygpt.align.verdicts import probability_of
from mygpt.artifacts.dataset import Dataset, Preference
from mygpt.artifacts.model import Adapter, Model
from mygpt.core.run import Run
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.methods import Method
from mygpt.lm.chat import Rendered
from mygpt.lm.load import preferred_device
from mygpt.training.activations import ForwardPass, rows_of
from mygpt.training.batches import Plan, batch_of, cut_by_tokens
from mygpt.training.compile_layers import compile_layers
from mygpt.training.fit import Work, compared, foreseen, require_memory
from mygpt.training.forecast import Forecast
from mygpt.training.losses import chunk_labels_for, require_own_loss
from mygpt.training.steps import Examples, Steps
from mygpt.training.tuning import TuningConfig, learnt, names_of, published

_GENTLER = 10  # preferences move a model at a tenth of the rate at which examples teach it


class GentleConfig(TuningConfig):
    """`learning_rate` None: a tenth of the method's own."""

    method: Method = LoRA()
    epochs: PositiveInt = 1
    max_example_tokens: PositiveInt = 1024  # a prompt with one answer
    drop_unusable: bool = False  # leave out what nothing can be learnt from and say how much, instead of refusing


class PairTuningConfig(GentleConfig):
    step_pairs: PositiveInt = 16  # per update
    compile_layers: bool = False  # on a GPU, of packed rows: up to a minute before the first steps, then faster


C = TypeVar("C", bound=TuningConfig)


def with_gentle_rate(config: C, *, run: Run) -> C:
    if config.learning_rate is not None:
        return config
    rate = config.method.learning_rate / _GENTLER
    run.note(f"Learning rate {rate:g}, a tenth of what is usual for `method={config.method.name}`.")
    return config.model_copy(update={"learning_rate": rate})


@dataclass(frozen=True)
class PairWork:
    policy: Policy
    train: list[Pair]
    held_out: list[Pair]
    num_dropped: int
    is_shared: bool  # the two answers of a pair stand in one row
    chunk_labels: int
    micro_batch_tokens: int
    forecast: Forecast
    run: Run

    def rows(self, numbers: Sequence[int]) -> AnswerRows:
        return self._rows([self.train[i] for i in numbers])

    def answers(self, module: Any, rows: AnswerRows) -> torch.Tensor:
        """(P, 2) float32: sums over the answer's tokens, of chosen and rejected."""
        return answer_logprobs(module, rows, chunk_labels=self.chunk_labels).view(-1, 2)

    def lengths(self, pairs: Sequence[Pair]) -> list[int]:
        """Tokens that a pair costs."""
        return [row_tokens((p.chosen, p.rejected), shared=self.is_shared) for p in pairs]

    @property
    def facts(self) -> dict[str, Any]:
        return {"pairs": len(self.train), "unusable_dropped": self.num_dropped, "prompts_shared": self.is_shared}

    @torch.no_grad()
    def logprobs(self, module: Any, pairs: Sequence[Pair]) -> torch.Tensor:
        """(n, 2), as `answers`, without gradients."""

        def of(numbers: Sequence[int]) -> torch.Tensor:
            return self.answers(module, self._rows([pairs[i] for i in numbers]))

        return by_length(of, self.lengths(pairs), budget_tokens=self.micro_batch_tokens, run=self.run)

    def measured(self, module: Any, reference_n2: torch.Tensor | None = None) -> dict[str, Any] | None:
        """On the held-out pairs; None without some."""
        if not self.held_out:
            return None
        tokens_n2 = token_counts(self.held_out, device=self.policy.device)
        return measures(self.logprobs(module, self.held_out), tokens_n2, reference_n2)

    def _rows(self, pairs: Sequence[Pair]) -> AnswerRows:
        both = [(p.chosen, p.rejected) for p in pairs]
        places: Any = {"padding_id": self.policy.padding_id, "device": self.policy.device}
        if not self.is_shared:
            return separate_rows(both, **places)
        return shared_rows(both, **places, packed=packs_pairs(self.policy.module))


def pair_work(
    config: PairTuningConfig,
    *,
    model: Model,
    dataset: Dataset,
    reference: Model | None = None,
    with_reference: bool = True,
    run: Run,
) -> PairWork:
    """Raises Refused for pairs that nothing can be learnt from, for what `open_policy` refuses, and where memory is lacking."""
    train, test = dataset.preferences("train"), dataset.preferences("test")
    bare = policy_blueprint(model, config)
    pairs, held_out = _usable(train, bare, config, run=run), _usable(test, bare, config, run=run) if test else []
    forecast = _forecast(config, model, pairs, reference=reference, with_reference=with_reference, order=run.random, home=run.home)
    run.note(f"Training needs {forecast.told()}.")
    policy = open_policy(model, config, reference=reference, with_reference=with_reference, run=run)
    if not with_reference and probabilities(pairs, device=policy.device) is not None:
        run.warn("The pairs say how sure they are (`probability`), which this loss does not use: every chosen answer counts as the better.")
    require_known_head(policy, [pair.chosen for pair in pairs])
    longest = max(pairs, key=lambda pair: pair.num_tokens)
    is_shared = takes_shared_rows(policy.module, (longest.chosen, longest.rejected), padding_id=policy.padding_id, run=run)
    if config.compile_layers:
        compile_packed(policy.module, is_packed=is_shared and packs_pairs(policy.module), run=run)
    num_dropped = len(train) + len(test) - len(pairs) - len(held_out)
    chunk_labels = chunk_labels_for(policy.module)
    return PairWork(policy, pairs, held_out, num_dropped, is_shared, chunk_labels, config.micro_batch_tokens, forecast, run)


def compile_packed(module: Any, *, is_packed: bool, run: Run) -> None:
    if not is_packed:
        run.warn("Layers are not compiled: that is done for packed rows, on a GPU.")
        return
    run.note("Layers are compiled at the first rows: the first steps take longer, up to a minute.")
    compile_layers(module, any_length=True)


def pairs_forecast(
    config: PairTuningConfig, *, model: Model, dataset: Dataset, reference: Model | None = None, with_reference: bool = True, home: Path
) -> dict[str, Any]:
    """What learning these pairs would need, said by `--dry-run`. No weight is loaded."""
    pairs = _usable(dataset.preferences("train"), policy_blueprint(model, config), config)
    forecast = _forecast(config, model, pairs, reference=reference, with_reference=with_reference, order=Random, home=home)
    return foreseen(forecast, examples=len(pairs))


def _usable(rows: Sequence[Preference], policy: Policy, config: PairTuningConfig, *, run: Run | None = None) -> list[Pair]:
    allowed: Any = {"max_example_tokens": config.max_example_tokens, "context_tokens": policy.context_tokens}
    return usable_pairs(rows, policy.renderer, **allowed, drop_unusable=config.drop_unusable, run=run)


def _forecast(
    config: PairTuningConfig,
    model: Model,
    pairs: Sequence[Pair],
    *,
    reference: Model | None,
    with_reference: bool,
    order: Callable[[str], Random],
    home: Path,
) -> Forecast:
    """Of pairs whose answers share a row, which is found out when weights are there."""
    lengths = [row_tokens((pair.chosen, pair.rejected), shared=True) for pair in pairs]
    known = Examples((), lengths, [sum(pair.chosen.trained) + sum(pair.rejected.trained) for pair in pairs])

    def work_of(config: PairTuningConfig) -> Work:
        module, copy = policy_blueprint(model, config).module, copy_bytes(model, config, reference) if with_reference else 0
        plan = plan_steps(lengths, config, step_size=config.step_pairs, order=order)
        most_labels = chunk_labels_for(module, device=preferred_device())
        return Work(module, plan, known, ForwardPass(shared_pass, rows_of(lengths), most_labels=most_labels), copy)

    return require_memory(config, work_of, home=home)


def require_known_head(policy: Policy, examples: Sequence[Rendered]) -> None:
    """Raises Refused for a model whose log-probabilities would be wrong here."""
    shortest = batch_of([min(examples, key=lambda e: len(e.token_ids))], padding_id=policy.padding_id, device=policy.device)
    require_own_loss(policy.module, shortest.ids_BT, shortest.trained_BT)


def by_length(
    of: Callable[[Sequence[int]], torch.Tensor], lengths: Sequence[int], *, budget_tokens: int, run: Run | None = None
) -> torch.Tensor:
    """What `of` gives for examples of like length together, put in the order of `lengths`. With a run, shows progress."""
    groups = cut_by_tokens(sorted(range(len(lengths)), key=lambda i: lengths[i]), lengths, budget_tokens)
    progress = run.progress(sum(lengths), "tokens") if run else None
    made = []
    for group in groups:
        made.append(of(group))
        if progress:
            progress.advance(sum(lengths[i] for i in group))
    order = torch.tensor([i for group in groups for i in group])
    return torch.cat(made)[order.argsort().to(made[0].device)]


def plan_steps(lengths: Sequence[int], config: TuningConfig, *, step_size: int, order: Callable[[str], Random]) -> Plan:
    """Steps of `step_size` examples of like length, every one once an epoch, in micro-batches of at most `micro_batch_tokens`."""
    plan: Plan = []
    for epoch in range(config.epochs):
        own = order(f"order/{epoch}")
        by_length = sorted(range(len(lengths)), key=lambda i: lengths[i] * own.uniform(0.9, 1.1))
        steps = [by_length[start : start + step_size] for start in range(0, len(by_length), step_size)]
        own.shuffle(steps)
        plan += [cut_by_tokens(step, lengths, config.micro_batch_tokens) for step in steps]
    return plan


def known_pairs(work: PairWork) -> Examples:
    """Tokens as they are read: those of a shared prompt once."""
    labels = [sum(pair.chosen.trained) + sum(pair.rejected.trained) for pair in work.train]
    tokens = work.lengths(work.train) if work.is_shared else [pair.num_tokens for pair in work.train]
    return Examples(names_of([pair.row for pair in work.train]), num_tokens=tokens, num_trained=labels)


def token_counts(pairs: Sequence[Pair], *, device: torch.device) -> torch.Tensor:
    """(n, 2) float32: labels of chosen and rejected."""
    counts = [[sum(pair.chosen.trained), sum(pair.rejected.trained)] for pair in pairs]
    return torch.tensor(counts, dtype=torch.float32, device=device).view(-1, 2)


def probabilities(pairs: Sequence[Pair], *, device: torch.device) -> torch.Tensor | None:
    """(n), that the chosen answer is the better one, by the rows' facts (`verdicts`); 1 where a row says nothing, None where none does.

    Raises Refused for what is no number from 0 to 1.
    """
    found = [probability_of(pair.row) for pair in pairs]
    return torch.tensor(found, device=device) if any(p != 1.0 for p in found) else None


def publish_aligned(
    policy: Policy,
    config: TuningConfig,
    steps: Steps,
    *,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    told: str,
    forecast: Forecast,
    facts: Mapping[str, Any],
    run: Run,
) -> Adapter | Model:
    """`before` and `after`: what was measured on held-out rows, None without some; `told`: the same in words."""
    sentences = [f"Held out: {told}." if told else "No held-out pairs: how well it does was not measured."]
    said = {**learnt(policy.module, policy.loaded, config, steps), **compared(forecast, steps, home=run.home)}
    said |= {"template": policy.renderer.template_digest, **facts}
    said |= {"held_out": {"before": before, "after": after} if after else None, "sentences": sentences}
    made = published(policy.module, policy.loaded, config, facts=said, inherited=policy.loaded.model.manifest.facts, run=run)
    steps.checkpoints.clear()
    return made
