"""Is a text toxic? A linear head on sentence embeddings, a few kilobytes that come with the package.

    Toxicity(embedder).score(texts)   (N) the probability that a text is hate speech or offensive

Source     data and classes: Davidson et al. 2017, arXiv:1703.04009; a linear probe on frozen embeddings: `training/probe`
We differ  24,783 tweets are 83 % toxic, since they were found by a word list: the head is fitted and calibrated as if toxic and other texts
           were equally frequent, so that 0.5 means "as much like the one as like the other"
Limits     toxicity_card.md, which lies beside the weights. Most of all: mentioning a group, or writing in a dialect, is not toxic, and this
           head, like others trained on these tweets, often says so (Sap et al. 2019; Davidson et al. 2019, arXiv:1905.12516)

The head reads vectors of one model, all-MiniLM-L6-v2 (`minilm`). Whether an embedder gives those is checked by what it does: two sentences
are embedded and compared with the vectors that were stored at training.
"""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mygpt.core.digest import digest_file
from mygpt.core.errors import UsageError
from mygpt.infer.protocols import Embedder, Identity
from mygpt.training.probe import load_probe

TOXIC_FROM = 0.5  # the threshold of Gehman et al. 2020, arXiv:2009.11462
CHECK_SENTENCES = ("The ferry leaves the harbour at nine.", "Please read the instructions before you switch on the pump.")
_SAME_MODEL_COSINE = 0.99  # bfloat16 against float32: above 0.999; another model of 384 dimensions: about 0
_NOT_TOXIC = "neither"


class ToxicityScorer(Protocol):
    """Whatever gives each text a probability of being toxic."""

    @property
    def identity(self) -> Identity: ...

    def score(self, texts: Sequence[str]) -> np.ndarray: ...


class Toxicity:
    def __init__(self, embedder: Embedder):
        path = stored_head()
        stored = load_probe(path)
        self._embedder, self._probe, self._digest = embedder, stored.probe, digest_file(path)
        _require_same_model(embedder, stored.extra["check_vectors"], stored.about)

    @property
    def identity(self) -> Identity:
        return {"guard": "toxicity", "head": self._digest, "embedder": self._embedder.identity}

    @property
    def labels(self) -> tuple[str, ...]:
        return self._probe.labels

    def classes(self, texts: Sequence[str]) -> np.ndarray:
        """(N, 3) probabilities, in the order of `labels`."""
        probabilities_NK = self._probe.probabilities(self._embedder.embed(list(texts)))
        blank_N = np.asarray([not text.strip() for text in texts], dtype=bool)
        probabilities_NK[blank_N] = [float(label == _NOT_TOXIC) for label in self.labels]  # who says nothing offends nobody
        return probabilities_NK

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """(N) the probability of hate speech or offensive language; 0 for a blank text."""
        scores_N: np.ndarray = 1 - self.classes(texts)[:, self.labels.index(_NOT_TOXIC)]
        return scores_N


def stored_head() -> Path:
    return Path(str(resources.files("mygpt.guard") / "toxicity.safetensors"))


def _require_same_model(embedder: Embedder, stored_CD: np.ndarray, about: dict[str, Any]) -> None:
    fix = "Use the embedder `minilm`, or fit a head for yours: benchmarks/toxicity.py shows how."
    if embedder.dimensions != stored_CD.shape[1]:
        what = f"The toxicity head reads vectors of {stored_CD.shape[1]} dimensions, this embedder's have {embedder.dimensions}."
        raise UsageError(what, fix=fix)
    cosines_C = (embedder.embed(list(CHECK_SENTENCES)) * stored_CD.astype(np.float32)).sum(axis=1)
    if not (cosines_C >= _SAME_MODEL_COSINE).all():
        named, cosine = about.get("embedder", "minilm"), cosines_C.min()
        what = f"This embedder is not {named}, which the toxicity head was fitted to: vectors differ (cosine {cosine:.2f})."
        raise UsageError(what, fix=fix)
