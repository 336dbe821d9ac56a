"""What is watched while a policy learns from rewards: one row of figures after each rollout, logged, and read by the doctor (`doctor`)."""

from dataclasses import asdict, dataclass


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
    ratio_max: float | None = None
    approx_kl: float | None = None  # mean of half the squared log ratio, new to old policy
    value_explained: float | None = None  # 1 - variance of (return - value) / variance of return
    reward_disagreement: float | None = None  # mean standard deviation over an ensemble of rewards, or
    held_out_reward: float | None = None  # the mean of another reward that is not trained on
    win_rate: float | None = None  # against the start, on fixed prompts
    grad_norm: float | None = None

    def logged(self) -> dict[str, float]:
        return {name: value for name, value in asdict(self).items() if value is not None}
