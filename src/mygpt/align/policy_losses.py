"""PPO's two losses, token by token: nothing is averaged here, so that every token weighs the same however a step is split.

    surrogate = clipped_surrogate(logprobs_N, old_logprobs_N, advantages_N, clip_low=0.2, clip_high=0.2)
    value = clipped_value_losses(values_N, old_values_N, returns_N, clip=0.2)
    loss = (surrogate.losses + 0.1 * value.losses - 0.01 * entropies_N).sum() / step.num_trained      of one micro-batch

Source     Schulman et al. 2017, arXiv:1707.06347, equations 7 and 9; the clipped value loss: its code (OpenAI baselines, ppo2); two
           different bounds: Yu et al. 2025, arXiv:2503.14476 (DAPO), section 3.1; dual clip: Ye et al. 2019, arXiv:1912.09729, equation 5;
           `weighed_likelihood`: MiniMax 2025, arXiv:2506.13585 (CISPO), equations 4 and 5, without a lower bound, as there in practice;
           `of_whole_answers`: Zheng et al. 2025, arXiv:2507.18071 (GSPO), equation 7
We differ  the log ratio is cut at 20 either way, so that no token makes the loss infinite
Dims       N tokens that the policy wrote; every function takes any shape
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

_LARGEST_LOG_RATIO = 20.0


class Surrogate(NamedTuple):
    losses: torch.Tensor  # with gradients
    ratios: torch.Tensor  # of the new policy's probability to the old one's
    is_clipped: torch.Tensor  # bool: the clipped ratio gave the loss, so the token moves nothing


class ValueLosses(NamedTuple):
    losses: torch.Tensor  # with gradients
    is_clipped: torch.Tensor  # bool


def clipped_surrogate(
    logprobs_N: torch.Tensor,
    old_logprobs_N: torch.Tensor,
    advantages_N: torch.Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> Surrogate:
    """max(-A ratio, -A clip(ratio, 1 - clip_low, 1 + clip_high)); with `dual_clip` at most -A dual_clip where A is negative."""
    ratios_N = ratios_of(logprobs_N, old_logprobs_N)
    plain_N = -advantages_N * ratios_N
    clipped_N = -advantages_N * ratios_N.clamp(1 - clip_low, 1 + clip_high)
    losses_N, is_clipped_N = torch.maximum(plain_N, clipped_N), clipped_N > plain_N
    if dual_clip is not None:
        bound_N = -advantages_N * dual_clip
        is_bounded_N = (advantages_N < 0) & (bound_N < losses_N)
        losses_N, is_clipped_N = torch.where(is_bounded_N, bound_N, losses_N), is_clipped_N | is_bounded_N
    return Surrogate(losses_N, ratios_N.detach(), is_clipped_N)


def weighed_likelihood(
    logprobs_N: torch.Tensor, old_logprobs_N: torch.Tensor, advantages_N: torch.Tensor, *, clip_high: float
) -> Surrogate:
    """-A ratio log pi, the ratio without gradient and at most 1 + clip_high: no token is left out, the odd ones weigh less."""
    ratios_N = ratios_of(logprobs_N.detach(), old_logprobs_N)
    return Surrogate(-advantages_N * ratios_N.clamp(max=1 + clip_high) * logprobs_N, ratios_N, ratios_N > 1 + clip_high)


def of_whole_answers(logprobs_N: torch.Tensor, old_logprobs_N: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """(N) log-probabilities whose ratio to the old ones is the answer's at each of its tokens: the geometric mean of theirs."""
    parts = (logprobs_N - old_logprobs_N).split(list(lengths))
    return old_logprobs_N + torch.cat([part.mean().expand(len(part)) for part in parts])


def ratios_of(logprobs_N: torch.Tensor, old_logprobs_N: torch.Tensor) -> torch.Tensor:
    return (logprobs_N - old_logprobs_N).clamp(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO).exp()


def approx_kl(logprobs_N: torch.Tensor, old_logprobs_N: torch.Tensor) -> torch.Tensor:
    """Half the squared log ratio: how far the update has moved the policy; no gradients."""
    return 0.5 * (logprobs_N - old_logprobs_N).detach() ** 2


def clipped_value_losses(values_N: torch.Tensor, old_values_N: torch.Tensor, returns_N: torch.Tensor, *, clip: float | None) -> ValueLosses:
    """max((V - R)^2, (V_clipped - R)^2) / 2, V_clipped at most `clip` from the value of the rollout; None: not clipped."""
    plain_N = (values_N - returns_N) ** 2
    if clip is None:
        return ValueLosses(0.5 * plain_N, torch.zeros_like(plain_N, dtype=torch.bool))
    kept_N = torch.maximum(torch.minimum(values_N, old_values_N + clip), old_values_N - clip)
    clipped_N = (kept_N - returns_N) ** 2
    return ValueLosses(0.5 * torch.maximum(plain_N, clipped_N), clipped_N > plain_N)
