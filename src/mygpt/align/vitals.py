"""What is watched while a policy learns from rewards: one row of figures after each rollout, logged, and read by the doctor (`doctor`)."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Vitals:
    """None: this method has no such figure, or it was not measured at this rollout."""

    rollout: int  # from 1
    reward: float  # mean of what is trained on, before any KL or stop penalty
    reward_std: float
    kl: float  # nats a sequence from policy to reference, mean over sequences of the sum over tokens
    entropy: float  # nats a token, of the sampling distribution
    length: float  # tokens of an answer, mean
    finished_share: float  # of answers, ended by themselves
    duplicate_share: float  # of answers, equal to an earlier one of the rollout
    kl_coefficient: float | None = None
    clip_share: float | None = None  # of tokens, whose ratio was clipped
    answer_clip_share: float | None = None  # of answers, where the ratio is that of a whole answer
    ratio_max: float | None = None  # of a token
    approx_kl: float | None = None  # nats a token: mean of half the squared log ratio, new to old policy
    value_explained: float | None = None  # 1 - variance of (return - value) / variance of return
    reward_disagreement: float | None = None  # mean standard deviation over an ensemble of rewards, or
    held_out_reward: float | None = None  # the mean of another reward that is not trained on
    win_rate: float | None = None  # against the start, on fixed prompts
    grad_norm: float | None = None
    reward_per_token: float | None = None  # what a longer answer earns: see `reward_per_token`
    flat_share: float | None = None  # of prompts, whose answers all earn the same: see `flat_share`

    def logged(self) -> dict[str, float]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "Vitals | None":
        """From what `logged` gave, among other things; None where a figure that every method has is missing."""
        known = {field.name: record[field.name] for field in fields(cls) if record.get(field.name) is not None}
        needed = [field.name for field in fields(cls) if field.default is MISSING]
        return cls(**known) if all(name in known for name in needed) else None


def reward_per_token(rewards: Sequence[float], lengths: Sequence[int]) -> float | None:
    """Least-squares slope of reward on length over the answers of a rollout; None when all are of one length."""
    mean_reward, mean_length = sum(rewards) / len(rewards), sum(lengths) / len(lengths)
    spread = sum((length - mean_length) ** 2 for length in lengths)
    moved = sum((length - mean_length) * (reward - mean_reward) for reward, length in zip(rewards, lengths, strict=True))
    return moved / spread if spread else None


def flat_share(rewards: Sequence[float], samples: int) -> float | None:
    """Of groups of `samples` answers that follow one another: the share in which all earn the same, so that nothing is preferred.

    None where a prompt has one answer: it is compared with those to other prompts.
    """
    if samples == 1:
        return None
    groups = [rewards[i : i + samples] for i in range(0, len(rewards), samples)]
    return sum(max(group) - min(group) < 1e-8 for group in groups) / len(groups)
