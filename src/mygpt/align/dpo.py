"""Direct preference optimisation and its kin: chosen answers become likelier than rejected ones, measured against where the model began.

What is minimised is the setting `loss` (`align/pair_losses`); what is trained, `method`. The reference's log-probabilities are computed
once, before the first step: training holds one forward pass.

Source     Rafailov et al. 2023, arXiv:2305.18290, equation 7; the other losses in `pair_losses`
We differ  the two answers of a pair share a row, so their prompt is read once (`answer_rows`); no dropout; AdamW
Cost       one forward and one backward pass over prompt + chosen + rejected tokens, and one forward pass of the reference; losses that
           sort a whole step (aot) take one more forward pass
Dims       N training pairs   S pairs of a step   P pairs of a micro-batch
"""

from pathlib import Path
from typing import Any

import torch
from pydantic import NonNegativeFloat

from mygpt.align.pair_losses import DPO, Compared, PairLoss, Tangent, expected, is_of_whole_steps, negative_log_likelihood
from mygpt.align.pair_tuning import (
    PairTuningConfig,
    known_pairs,
    pair_work,
    pairs_forecast,
    plan_steps,
    probabilities,
    publish_aligned,
    token_counts,
    with_gentle_rate,
)
from mygpt.align.preference_measures import told
from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import recipe
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.lm.memory import on_device
from mygpt.training.batches import Ahead
from mygpt.training.tuning import rate_at, tuning_steps


class DPOConfig(PairTuningConfig):
    loss: PairLoss = DPO()
    nll_weight: NonNegativeFloat = 0.0  # of the chosen answer's loss a token, beside it


@recipe
def dpo(config: DPOConfig, *, model: Model, dataset: Dataset, reference: Model | None = None, run: Run) -> Adapter | Model:
    """Learn the pairs in the split `train` of `dataset` (schema `preference`) and measure on `test`: an Adapter on `model`, or a new Model.

    `reference`: what to stay near, an ancestor of `model`; without, `model` as it is.
    """
    config = with_gentle_rate(config, run=run)
    work = pair_work(config, model=model, dataset=dataset, reference=reference, run=run)
    module, device = work.policy.module, work.policy.device
    tokens_N2 = token_counts(work.train, device=device)
    probability_N = probabilities(work.train, device=device)
    if probability_N is not None and is_of_whole_steps(config.loss):
        fix = "Choose another loss, or `loss.label_smoothing` for all pairs alike."
        raise Refused(f"The pairs say how sure they are, and `loss={config.loss.name}` sorts answers apart from their pairs.", fix=fix)
    with work.policy.reference() as frozen:
        reference_N2 = work.logprobs(frozen, work.train)
        reference_held_out = work.logprobs(frozen, work.held_out) if work.held_out else None
    before = work.measured(module, reference_held_out)

    def compared(logprobs_P2: torch.Tensor, numbers: list[int]) -> Compared:
        places_P = on_device(torch.tensor(numbers), device)
        return Compared(*logprobs_P2.unbind(1), *reference_N2[places_P].unbind(1), *tokens_N2[places_P].unbind(1))

    plan = plan_steps(work.lengths(work.train), config, step_size=config.step_pairs, order=run.random)
    with tuning_steps(plan, known_pairs(work), module=module, config=config, run=run) as steps:
        batches = Ahead(work.rows, steps.micro_batches())
        for step in steps:
            tangent = None
            if is_of_whole_steps(config.loss):
                with torch.no_grad():
                    first_S2 = torch.cat([work.answers(module, work.rows(numbers)) for numbers in step.micro_batches])
                tangent = Tangent.at(config.loss, compared(first_S2, step.rows), step.rows)
            for numbers in step.micro_batches:
                rows = batches.take(numbers)
                pairs = compared(work.answers(module, rows), numbers)
                if tangent is None:
                    losses_P = expected(config.loss, pairs, None if probability_N is None else probability_N[numbers])
                else:
                    losses_P = tangent(pairs, numbers)
                if config.nll_weight:
                    losses_P = losses_P + config.nll_weight * negative_log_likelihood(pairs)
                loss = losses_P.sum() / len(step.rows)
                loss.backward()
                step.add(loss, computed_tokens=rows.num_computed)
                batches.prepare()
            step.update(learning_rate=rate_at(step, config), max_grad_norm=config.max_grad_norm)

    after = work.measured(module, reference_held_out)
    shown: dict[str, Any] = {"before": before, "after": after, "told": told(before, after)}
    return publish_aligned(work.policy, config, steps, **shown, forecast=work.forecast, facts=work.facts, run=run)


def dpo_forecast(config: DPOConfig, *, model: Model, dataset: Dataset, reference: Model | None = None, home: Path) -> dict[str, Any]:
    """What `dpo` would do and need, said by `--dry-run`. No weight is loaded."""
    return pairs_forecast(config, model=model, dataset=dataset, reference=reference, home=home)
