"""Preference optimisation without a reference: the reward of an answer is its own log-probability.

    simpo    -log sigmoid(beta (mean log p(chosen) - mean log p(rejected)) - gamma)     means over an answer's tokens
    cpo      -log sigmoid(beta (log p(chosen) - log p(rejected)))  -  mean log p(chosen)

Source     SimPO: Meng et al. 2024, arXiv:2405.14734, equation 6; CPO: Xu et al. 2024, arXiv:2401.08417, equations 4 to 6; both together, as
           simpo with `nll_weight`: the authors' CPO-SimPO
We differ  the likelihood term is an average over an answer's tokens, as trl's is; the two answers of a pair share a row (`answer_rows`); no
           dropout; AdamW
Cost       one forward and one backward pass over prompt + chosen + rejected tokens
Dims       P pairs of a micro-batch
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat

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
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.training.tuning import rate_at, tuning_steps


class SimPO(Config):
    name: Literal["simpo"] = "simpo"
    beta: PositiveFloat = 2.5
    gamma: NonNegativeFloat = 1.375  # by which the reward of chosen answers shall be higher
    nll_weight: NonNegativeFloat = 0.0

    def __call__(self, logprobs_P2: torch.Tensor, tokens_P2: torch.Tensor) -> torch.Tensor:
        chosen_P, rejected_P = (logprobs_P2 / tokens_P2).unbind(1)
        return -F.logsigmoid(self.beta * (chosen_P - rejected_P) - self.gamma) - self.nll_weight * chosen_P


class CPO(Config):
    name: Literal["cpo"] = "cpo"
    beta: PositiveFloat = 0.1
    nll_weight: NonNegativeFloat = 1.0

    def __call__(self, logprobs_P2: torch.Tensor, tokens_P2: torch.Tensor) -> torch.Tensor:
        chosen_P, rejected_P = logprobs_P2.unbind(1)
        return -F.logsigmoid(self.beta * (chosen_P - rejected_P)) - self.nll_weight * chosen_P / tokens_P2[:, 0]


class SimPOConfig(PairTuningConfig):
    loss: Annotated[SimPO | CPO, Field(discriminator="name")] = SimPO()


@recipe
def simpo(config: SimPOConfig, *, model: Model, dataset: Dataset, run: Run) -> Adapter | Model:
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
                loss = config.loss(work.answers(module, rows), tokens_N2[numbers]).sum() / len(step.rows)
                loss.backward()
                step.add(loss, computed_tokens=rows.num_computed)
            step.update(learning_rate=rate_at(step, config), max_grad_norm=config.max_grad_norm)

    after = work.measured(module)
    shown: dict[str, Any] = {"before": before, "after": after, "told": told(before, after)}
    return publish_aligned(work.policy, config, steps, **shown, forecast=work.forecast, facts=work.facts, run=run)


def simpo_forecast(config: SimPOConfig, *, model: Model, dataset: Dataset, home: Path) -> dict[str, Any]:
    """What `simpo` would do and need, said by `--dry-run`. No weight is loaded."""
    return pairs_forecast(config, model=model, dataset=dataset, with_reference=False, home=home)
