"""What is counted while PPO learns from one rollout, and the row of vitals that comes of it. Every mean is over real tokens alone."""

from dataclasses import dataclass, field
from statistics import fmean, pstdev

import torch

from mygpt.align.advantages import explained_variance
from mygpt.align.experience import Experience
from mygpt.align.policy_losses import Surrogate
from mygpt.align.vitals import Vitals, flat_share, reward_per_token


@dataclass
class Seen:
    """Of the updates so far."""

    num_tokens: int = 0
    num_clipped: int = 0
    ratio_max: float = 0.0
    approx_kls: list[float] = field(default_factory=list)  # of each update, nats a token
    grad_norms: list[float] = field(default_factory=list)
    _tokens: int = 0  # of the update under way
    _approx_kl: float = 0.0

    def add(self, surrogate: Surrogate, approx_kl_N: torch.Tensor) -> None:
        """One micro-batch."""
        self._tokens += len(approx_kl_N)
        self._approx_kl += float(approx_kl_N.sum())
        self.num_clipped += int(surrogate.is_clipped.sum())
        self.ratio_max = max(self.ratio_max, float(surrogate.ratios.max()))

    def updated(self, grad_norm: float) -> None:
        self.num_tokens += self._tokens
        self.approx_kls.append(self._approx_kl / self._tokens)
        self.grad_norms.append(grad_norm)
        self._tokens, self._approx_kl = 0, 0.0

    @property
    def updates(self) -> int:
        return len(self.grad_norms)

    @property
    def approx_kl(self) -> float:
        """As the last update found it, before it moved the policy itself; 0 before the first."""
        return self.approx_kls[-1] if self.approx_kls else 0.0


def vitals_of(rollout: int, experience: Experience, seen: Seen, *, coefficient: float, samples: int) -> Vitals:
    made, rewards = list(experience.made.values()), list(experience.rewards.values())
    values_N, returns_N = (torch.cat(list(part.values())) for part in (experience.values, experience.returns))
    return Vitals(
        rollout=rollout,
        reward=fmean(rewards),
        reward_std=pstdev(rewards),
        kl=experience.kl,
        entropy=experience.entropy,
        length=fmean(one.num_tokens for one in made),
        finished_share=fmean(one.is_finished for one in made),
        duplicate_share=1 - len({one.answer.text for one in made}) / len(made),
        kl_coefficient=coefficient,
        clip_share=seen.num_clipped / seen.num_tokens,
        ratio_max=seen.ratio_max,
        approx_kl=fmean(seen.approx_kls),
        value_explained=explained_variance(values_N, returns_N),
        grad_norm=fmean(seen.grad_norms),
        reward_per_token=reward_per_token(rewards, [one.num_tokens for one in made]),
        flat_share=flat_share(rewards, samples),
    )
