"""Best of n: several answers are sampled and the one that a reward values most is given. No weight moves.

    BestOfN(completer, reward, n=8)        a Completer, wherever one is taken
    kl_bound(8)                            how far from the completer's own distribution that can be, in nats

Source     Stiennon et al. 2020, arXiv:2009.01325, appendix G; the bound: the same, made precise by Beirami et al. 2024, arXiv:2401.01879
We differ  of equals the first
"""

import math
from collections.abc import Sequence

from mygpt.artifacts.dataset import Conversation
from mygpt.core.errors import UsageError
from mygpt.infer.protocols import Answer, Completer, Identity, Sampling
from mygpt.infer.rewards import IdentifiedReward, rewards_of

class BestOfN:
    def __init__(self, completer: Completer, reward: IdentifiedReward, *, n: int):
        if n < 1:
            raise UsageError(f"The best of {n} answers was asked for.", fix="Set `n` to 1 or more.")
        self._completer, self._reward, self._n = completer, reward, n

    @property
    def identity(self) -> Identity:
        return {"best_of": self._n, "reward": self._reward.identity, "completer": self._completer.identity}

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        answers = samples_of(self._completer, conversations, sampling, n=self._n)
        rewards = rewards_of(self._reward, [c for c in conversations for _ in range(self._n)], [a for own in answers for a in own])
        best = []
        for place, own in enumerate(answers):
            worth = rewards[place * self._n : (place + 1) * self._n]
            best.append(own[worth.index(max(worth))])
        return best

def samples_of(completer: Completer, conversations: Sequence[Conversation], sampling: Sampling, *, n: int) -> list[list[Answer]]:
    """`n` answers to each. A conversation that is given several times in one call is drawn several times (`infer/protocols`)."""
    if n > 1 and sampling.temperature <= 0:
        raise UsageError(f"{n} answers at temperature 0 are all alike.", fix="Set `temperature` above 0, for example to 1.")
    answers = completer.complete([c for c in conversations for _ in range(n)], sampling)
    return [answers[start : start + n] for start in range(0, len(answers), n)]

def kl_bound(n: int) -> float:
    """In nats, of best-of-n to what it samples from: reached where no two answers are worth the same, else less."""
    return math.log(n) - (n - 1) / n
