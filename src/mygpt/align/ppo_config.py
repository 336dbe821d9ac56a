"""The settings of PPO. Defaults are those of Huang et al. 2024, arXiv:2403.17031, but for sizes and rates, which suit LoRA on a laptop."""

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from mygpt.align.kl import Controller, Estimator, FixedKL
from mygpt.align.watch import WatchConfig
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.methods import Method
from mygpt.training.tuning import Share, TuningConfig


class PPOConfig(TuningConfig):
    method: Method = LoRA()

    # rollouts
    rollouts: PositiveInt = 50
    answers: PositiveInt = 64  # in each of them
    samples: PositiveInt = 1  # answers to each prompt
    max_answer_tokens: PositiveInt = 64
    max_example_tokens: PositiveInt = 512  # of a prompt and its answer
    temperature: PositiveFloat = 1.0

    # what a token earns
    kl: Controller = FixedKL()
    kl_estimator: Estimator = "k1"  # of the penalty
    scale_rewards: bool = False  # divide by the standard deviation of all so far
    clip_rewards: PositiveFloat | None = None  # to plus and minus this, after scaling
    missing_stop_penalty: NonNegativeFloat = 0.0  # off the reward of an answer that did not end by itself
    missing_stop_reward: float | None = None  # its whole reward instead, for example -1
    length_penalty: float = 0.0  # off an answer's reward, for each of its tokens; below 0 longer answers gain
    whiten_rewards: bool = False  # of tokens, KL and all: divide by their standard deviation
    gamma: Share = 1.0
    lam: Share = 0.95

    # updates
    micro_batch_tokens: PositiveInt = 1024  # padded tokens per forward pass: SmolLM2 with an adapter stays within 3 GiB
    epochs: PositiveInt = 4  # over each rollout
    minibatches: PositiveInt = 1  # in each epoch: as many updates
    learning_rate: PositiveFloat | None = None  # in the first rollout; None: a fifth of the method's own
    warmup_share: Share = 0.0
    final_share: Share = 0.0  # of the learning rate, at the end: it falls linearly
    adam_eps: PositiveFloat = 1e-5
    clip_low: PositiveFloat = 0.2
    clip_high: PositiveFloat = 0.2
    dual_clip: PositiveFloat | None = None  # 3 is usual
    value_clip: PositiveFloat | None = 0.2
    value_weight: NonNegativeFloat = 0.1
    value_from_reward: bool = False  # the value head begins as the reward model's own, instead of at zero
    entropy_weight: float = 0.0  # a bonus; below 0 a price, for text as predictable as the base writes
    kl_loss: NonNegativeFloat = 0.0  # weight of the KL to the reference as a loss, beside the penalty in `kl`
    stop_approx_kl: PositiveFloat | None = None  # nats a token: beyond it the other updates of a rollout are left out
    ptx_weight: PositiveFloat = 1.0  # of the loss on `ptx`, where that is given
    ptx_rows: PositiveInt = 8  # of `ptx`, in each update

    watch: WatchConfig = WatchConfig()  # figures beside the training's own, and the doctor

    @property
    def updates(self) -> int:
        """Of one rollout."""
        return self.epochs * self.minibatches
