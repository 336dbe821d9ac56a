"""An embedder without a model: passes for minilm, and puts chosen words at the toxic end of the head."""

from collections.abc import Sequence

import numpy as np

from mygpt.guard.toxicity import CHECK_SENTENCES, stored_head
from mygpt.infer.protocols import Identity
from mygpt.training.probe import load_probe


class StandIn:
    def __init__(self, toxic_word: str = "rotten"):
        stored = load_probe(stored_head())
        self._check_CD = stored.extra["check_vectors"].astype(np.float32)
        direction_D = stored.probe.weights_KD[stored.probe.labels.index("neither")]
        self._calm_D = (direction_D / np.linalg.norm(direction_D)).astype(np.float32)
        self._toxic_word = toxic_word

    @property
    def identity(self) -> Identity:
        return {"engine": "stand-in", "word": self._toxic_word}

    @property
    def dimensions(self) -> int:
        return len(self._calm_D)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        known = dict(zip(CHECK_SENTENCES, self._check_CD, strict=True))
        return np.stack([known.get(text, -self._calm_D if self._toxic_word in text else self._calm_D) for text in texts])
