"""Odds ratio preference optimisation: learn chosen answers as examples, and beside it the odds of chosen over rejected. No reference.

    loss  = -mean log p(chosen)  -  weight * log sigmoid(log odds(chosen) - log odds(rejected))
    odds  = p / (1 - p), with p the geometric mean of an answer's token probabilities

Source     Hong et al. 2024, arXiv:2403.07691, equations 3 to 7
We differ  the first part is of the answer's tokens, as the paper writes it, not of the prompt's too, as its code and trl have it; the two
           answers of a pair share a row (`answer_rows`); no dropout; AdamW with warm-up and cosine
Cost       one forward and one backward pass over prompt + chosen + rejected tokens
Dims       P pairs of a micro-batch
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat

from mygpt.align.pair_tuning import (
    PairTuningConfig,
    known_pairs,
    pair_work,
    pairs_forecast,
    plan_steps,
    publish_aligned,
    token_counts,
    with_gentle_rate,
)
from mygpt.align.preference_measures import told
from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import recipe
from mygpt.core.run import Run
from mygpt.training.tuning import rate_at, tuning_steps

_SURELY = -1e-6  # nats a token: a likelier answer than that has odds beyond float32


class ORPOConfig(PairTuningConfig):
    odds_weight: PositiveFloat = 0.1  # the paper's lambda


@recipe
def orpo(config: ORPOConfig, *, model: Model, dataset: Dataset, run: Run) -> Adapter | Model:
    """Learn the pairs in the split `train` of `dataset` (schema `preference`), measure on `test`: an Adapter on `model`, or a new Model."""
    config = with_gentle_rate(config, run=run)
    work = pair_work(config, model=model, dataset=dataset, with_reference=False, run=run)
    module = work.policy.module
    tokens_N2 = token_counts(work.train, device=work.policy.device)
    before = work.measured(module)
    plan = plan_steps(work.lengths(work.train), config, step_size=config.step_pairs, order=run.random)
    with tuning_steps(plan, known_pairs(work), module=module, config=config, run=run) as steps:
        for step in steps:
            for numbers in step.micro_batches:
                rows = work.rows(numbers)
                chosen_P, rejected_P = (work.answers(module, rows) / tokens_N2[numbers]).unbind(1)
                loss = (-chosen_P + config.odds_weight * odds_ratio_loss(chosen_P, rejected_P)).sum() / len(step.rows)
                loss.backward()
                step.add(loss, computed_tokens=rows.num_computed)
            step.update(learning_rate=rate_at(step, config), max_grad_norm=config.max_grad_norm)

    after = work.measured(module)
    shown: dict[str, Any] = {"before": before, "after": after, "told": told(before, after)}
    return publish_aligned(work.policy, config, steps, **shown, forecast=work.forecast, facts=work.facts, run=run)


def orpo_forecast(config: ORPOConfig, *, model: Model, dataset: Dataset, home: Path) -> dict[str, Any]:
    """What `orpo` would do and need, said by `--dry-run`. No weight is loaded."""
    return pairs_forecast(config, model=model, dataset=dataset, with_reference=False, home=home)


def odds_ratio_loss(chosen_P: torch.Tensor, rejected_P: torch.Tensor) -> torch.Tensor:
    """(P), of mean log-probabilities a token."""
    return -F.logsigmoid(log_odds(chosen_P) - log_odds(rejected_P))


def log_odds(logprobs: torch.Tensor) -> torch.Tensor:
    """log p - log(1 - p), of log p < 0."""
    bounded = logprobs.clamp_max(_SURELY)
    return bounded - torch.log(-torch.expm1(bounded))
