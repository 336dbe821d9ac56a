"""A reward of another kind than a model, fitted in a second: what the words of an answer are worth, by pairs of preferences.

    reward = WordReward.fitted(dataset, max_pairs=2000)     reads the split `train`
    reward(prompt, answer)                                  the mean worth of the answer's different words that have one; 0 without any

A reward model that is trained on is gamed in ways that this one does not share: watched beside it (`held_out_reward`), it shows hacking.
Nothing should be learnt from it: it reads no word's place and no prompt.

Source     Bradley and Terry 1952, with one strength a word; why a second reward: Gao et al. 2022, arXiv:2210.10760
We differ  the fit sums over words, the reward is their mean: a longer answer has more words, and is not better or worse for it
Dims       P pairs   W words
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from mygpt.artifacts.dataset import Conversation, Dataset, Preference
from mygpt.core.spread import spread
from mygpt.infer.protocols import Answer, Identity

_FEWEST_PAIRS = 3  # in which only one answer has the word: below, it has no worth


@dataclass(frozen=True)
class WordReward:
    weights: Mapping[str, float]
    dataset: str  # digest of the one whose pairs decided the weights
    max_pairs: int

    @classmethod
    def fitted(cls, dataset: Dataset, *, max_pairs: int = 2000) -> Self:
        """On pairs of the split `train`, at even distances; the fit holds pairs times words at once."""
        return cls(word_weights(spread(dataset.preferences("train"), max_pairs)), dataset.digest, max_pairs)

    @property
    def identity(self) -> Identity:
        return {"reward": "words", "dataset": self.dataset, "max_pairs": self.max_pairs}

    def __call__(self, prompt: Conversation, answer: Answer) -> float:
        return self.of_text(answer.text)

    def of_text(self, text: str) -> float:
        known = [self.weights[word] for word in sorted(words_of(text)) if word in self.weights]
        return sum(known) / len(known) if known else 0.0

    def hits(self, rows: Sequence[Preference]) -> list[bool]:
        """Of each pair, whether the preferred answer has more."""
        return [self.of_text(row.chosen) > self.of_text(row.rejected) for row in rows]


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d_']+(?:'[^\W\d_]+)*|\d+", text.lower()))


def difference(row: Preference) -> dict[str, float]:
    """1 for a word that only the chosen answer has, -1 for one that only the rejected one has."""
    chosen, rejected = words_of(row.chosen), words_of(row.rejected)
    return {word: 1.0 if word in chosen else -1.0 for word in chosen ^ rejected}


def word_weights(rows: Sequence[Preference], *, l2: float = 3.0, rounds: int = 200) -> dict[str, float]:
    """Logistic regression without an intercept on differences, by gradient descent; words of fewer than 3 pairs are left out."""
    differences = [difference(row) for row in rows]
    seen = Counter(word for one in differences for word in one)
    words = sorted(word for word, n in seen.items() if n >= _FEWEST_PAIRS)
    place = {word: i for i, word in enumerate(words)}
    x_PW = np.zeros((len(rows), len(words)))
    for p, one in enumerate(differences):
        for word, value in one.items():
            if word in place:
                x_PW[p, place[word]] = value
    w_W = np.zeros(len(words))
    rate = 1 / (np.linalg.norm(x_PW, ord=2) ** 2 / 4 + l2) if len(words) else 0.0
    for _ in range(rounds):
        w_W -= rate * (l2 * w_W - x_PW.T @ (1 / (1 + np.exp(x_PW @ w_W))))
    assert all(math.isfinite(value) for value in w_W)
    return dict(zip(words, w_W.tolist(), strict=True))
