"""Advantages without a critic: what an answer is worth beside the others, from rewards alone.

    group_relative(rewards_PG)       GRPO: in standard deviations of its group
    centred(rewards_PG)              Dr. GRPO: in the reward's own unit, so that no question weighs more than another
    leave_one_out(rewards_PG)        RLOO: against the mean of the others of its group
    moved_baseline(before, mean)     REINFORCE: against what was usual so far
    rewards_to_go(rewards_BL, ...)   REINFORCE++: each token what is still to come, with its KL in it
    has_spread(rewards_PG)           a group that agrees teaches nothing: every advantage above is zero there

Source     GRPO: Shao et al. 2024, arXiv:2402.03300, section 4.1.2; Dr. GRPO: Liu et al. 2025, arXiv:2503.20783, section 3.2; RLOO: Kool et
           al. 2019 and Ahmadian et al. 2024, arXiv:2402.14740, equation 8; REINFORCE: Williams 1992, section 2; REINFORCE++: Hu 2025,
           arXiv:2501.03262; groups without spread: Yu et al. 2025, arXiv:2503.14476, section 3.2
We differ  the standard deviation is that of a sample (n - 1), plus 1e-4, as in trl; the paper does not say which
Dims       P prompts   G answers of a prompt   B sequences   L tokens of the longest
"""

import torch

_APART = 1e-8  # rewards that differ by less are equal


def group_relative(rewards_PG: torch.Tensor) -> torch.Tensor:
    """(P, G)"""
    return centred(rewards_PG) / (rewards_PG.std(1, keepdim=True) + 1e-4)


def centred(rewards_PG: torch.Tensor) -> torch.Tensor:
    """(P, G)"""
    return rewards_PG - rewards_PG.mean(1, keepdim=True)


def leave_one_out(rewards_PG: torch.Tensor) -> torch.Tensor:
    """(P, G). Without bias, since the baseline of an answer does not contain its own reward."""
    others = rewards_PG.shape[1] - 1
    return rewards_PG - (rewards_PG.sum(1, keepdim=True) - rewards_PG) / others


def moved_baseline(before: float | None, mean_reward: float, *, decay: float) -> float:
    """`before`: None at the first rollout."""
    return mean_reward if before is None else decay * before + (1 - decay) * mean_reward


def rewards_to_go(rewards_BL: torch.Tensor) -> torch.Tensor:
    """(B, L): from each token to the end, undiscounted."""
    return rewards_BL.flip(1).cumsum(1).flip(1)


def has_spread(rewards_PG: torch.Tensor) -> torch.Tensor:
    """(P) bool"""
    return rewards_PG.amax(1) - rewards_PG.amin(1) > _APART
