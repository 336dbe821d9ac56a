"""How far a policy has gone from its reference, estimated on the tokens that it sampled; what that costs it; and who sets the price.

    k1(logprobs, reference)   log p - log q                    unbiased, either sign: the penalty of PPO
    k2(logprobs, reference)   (log p - log q)^2 / 2            its gradient is that of the divergence: for a KL that is a loss
    k3(logprobs, reference)   q/p - 1 - log(q/p)               unbiased, never negative
    penalised_rewards         -coefficient * KL of each token, and the score at the last one
    FixedKL, AdaptiveKL       the coefficient of the next rollout

Source     estimators: Schulman 2020, "Approximating KL divergence"; reward and controller: Ziegler et al. 2019, arXiv:1909.08593,
           equation 2 and section 2.2
We differ  the exponent of k3 ends at 20, so that one token cannot make the sum infinite
Dims       B answers   L tokens of an answer, from its left end; estimators take any shape
"""

from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat

from mygpt.core.config import Config

Estimator = Literal["k1", "k2", "k3"]
_LARGEST_LOG_RATIO = 20.0
_LARGEST_ERROR = 0.2  # of the controller: how far off a rollout was counts for no more than this, times its share of the horizon


def k1(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    return logprobs - reference_logprobs


def k2(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    return 0.5 * (logprobs - reference_logprobs) ** 2


def k3(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    log_ratio = reference_logprobs - logprobs
    return log_ratio.clamp(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO).exp() - 1 - log_ratio


ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}


def penalised_rewards(scores_B: torch.Tensor, kl_BL: torch.Tensor, is_answer_BL: torch.Tensor, *, coefficient: float) -> torch.Tensor:
    """(B, L): what each token is rewarded with. Every row has at least one token; beside the answers: 0."""
    rewards_BL = torch.where(is_answer_BL, -coefficient * kl_BL, 0.0)
    last_B = (is_answer_BL * torch.arange(1, kl_BL.shape[1] + 1, device=kl_BL.device)).argmax(1)
    return rewards_BL.scatter_add(1, last_B[:, None], scores_B[:, None].to(rewards_BL.dtype))


# -- controllers -------------------------------------------------------------------------------------------------------------


class FixedKL(Config):
    name: Literal["fixed"] = "fixed"
    coefficient: NonNegativeFloat = 0.05

    def next(self, coefficient: float, *, kl: float, num_answers: int) -> float:
        return coefficient


class AdaptiveKL(Config):
    """Holds the KL near `target` (nats an answer) by making it dearer or cheaper; a new price is reached over `horizon` answers."""

    name: Literal["adaptive"] = "adaptive"
    coefficient: PositiveFloat = 0.15  # at first
    target: PositiveFloat = 6.0
    horizon: PositiveFloat = 10_000.0

    def next(self, coefficient: float, *, kl: float, num_answers: int) -> float:
        """`kl`: of the rollout that was made at `coefficient`, mean over its answers of the sum over tokens."""
        error = min(max(kl / self.target - 1, -_LARGEST_ERROR), _LARGEST_ERROR)
        return coefficient * (1 + error * num_answers / self.horizon)


Controller = Annotated[FixedKL | AdaptiveKL, Field(discriminator="name")]
