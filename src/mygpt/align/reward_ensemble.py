"""Several rewards as one: their mean, and how far they are apart.

Where rewards that were learnt from different data or seeds disagree, an answer is outside what any of them knows: a policy that is led
there is gaming the reward. The disagreement is for watching, the mean for training.

Source     Coste et al. 2023, arXiv:2310.02743 (mean and variance over an ensemble of reward models)
We differ  the variance is not taken off the reward
"""

import statistics
from collections.abc import Sequence

from mygpt.artifacts.dataset import Conversation
from mygpt.core.errors import UsageError
from mygpt.infer.protocols import Answer, Identity
from mygpt.infer.rewards import IdentifiedReward, rewards_of


class RewardEnsemble:
    def __init__(self, rewards: Sequence[IdentifiedReward]):
        """Of one scale: reward models are normalised, other rewards are taken as they are."""
        if len(rewards) < 2:
            raise UsageError(f"An ensemble of {len(rewards)} cannot disagree.", fix="Give two rewards or more.")
        self._rewards = tuple(rewards)

    @property
    def identity(self) -> Identity:
        return {"reward": "ensemble", "of": [reward.identity for reward in self._rewards]}

    def __call__(self, prompt: Conversation, answer: Answer) -> float:
        return self.each([prompt], [answer])[0]

    def each(self, prompts: Sequence[Conversation], answers: Sequence[Answer]) -> list[float]:
        return [mean for mean, _ in self.means_and_stds(prompts, answers)]

    def disagreement(self, prompts: Sequence[Conversation], answers: Sequence[Answer]) -> list[float]:
        """The standard deviation over the rewards, answer by answer."""
        return [std for _, std in self.means_and_stds(prompts, answers)]

    def means_and_stds(self, prompts: Sequence[Conversation], answers: Sequence[Answer]) -> list[tuple[float, float]]:
        """Both, each reward asked once."""
        by_reward = [rewards_of(reward, prompts, answers) for reward in self._rewards]
        return [(statistics.fmean(own), statistics.pstdev(own)) for own in zip(*by_reward, strict=True)]
