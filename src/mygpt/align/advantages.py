"""How much better than expected each token of an answer turned out: generalised advantage estimation, and whitening.

    advantages_BL = gae(rewards_BL, values_BL, is_answer_BL, gamma=1.0, lam=0.95)
    returns_BL = advantages_BL + values_BL               what the value function learns: before whitening
    advantages_BL = whitened(advantages_BL, is_answer_BL)

Source     Schulman et al. 2015, arXiv:1506.02438, equation 16; whitening over all tokens of a rollout, with the unbiased variance: Ziegler
           et al. 2019, arXiv:1909.08593, their code
We differ  tokens that the policy did not write (the result of a tool) may stand inside an answer: value and advantage are carried over them
Dims       B answers   L tokens of an answer
"""

import torch

_SMALLEST_VARIANCE = 1e-8


def gae(rewards_BL: torch.Tensor, values_BL: torch.Tensor, is_answer_BL: torch.Tensor, *, gamma: float, lam: float) -> torch.Tensor:
    """(B, L) float32. After the end of an answer nothing is expected any more: its value is 0."""
    made_BL = torch.zeros(rewards_BL.shape, dtype=torch.float32, device=rewards_BL.device)
    next_value_B = next_advantage_B = made_BL.new_zeros(len(made_BL))
    for t in reversed(range(made_BL.shape[1])):
        value_B, is_answer_B = values_BL[:, t].float(), is_answer_BL[:, t]
        advantage_B = rewards_BL[:, t] + gamma * next_value_B - value_B + gamma * lam * next_advantage_B
        next_value_B = torch.where(is_answer_B, value_B, next_value_B)
        next_advantage_B = torch.where(is_answer_B, advantage_B, next_advantage_B)
        made_BL[:, t] = torch.where(is_answer_B, advantage_B, 0.0)
    return made_BL


def whitened(values_BL: torch.Tensor, is_answer_BL: torch.Tensor, *, shift_mean: bool = True) -> torch.Tensor:
    """Of variance 1 over all marked tokens, and of mean 0 (`shift_mean`) or of the mean they had; 0 beside them.

    One token alone has no variance, and becomes its own mean.
    """
    marked_N = values_BL[is_answer_BL]
    mean = marked_N.mean()
    variance = marked_N.var() if len(marked_N) > 1 else torch.zeros_like(mean)
    made_BL = (values_BL - mean) * torch.rsqrt(variance + _SMALLEST_VARIANCE)
    return torch.where(is_answer_BL, made_BL if shift_mean else made_BL + mean, 0.0)


def explained_variance(values_N: torch.Tensor, returns_N: torch.Tensor) -> float:
    """The share of the returns' variance that the values foresaw: 1 is all; below 0 they do harm. 0 where the returns are all alike."""
    variance = float(returns_N.var(correction=0))
    return 1 - float((returns_N - values_N).var(correction=0)) / variance if variance > _SMALLEST_VARIANCE else 0.0
