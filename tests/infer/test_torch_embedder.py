"""The embedder against transformers alone, and the cache around it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from mygpt.artifacts.model import Model
from mygpt.core.errors import UsageError
from mygpt.infer.cached import CachedEmbedder
from mygpt.infer.protocols import Identity
from mygpt.infer.torch_embedder import TorchEmbedder

TEXTS = ["How long is a carnet valid?", "", "Fog.", "the quay " * 400, "Größe 😀 東京", "The Heron carries 72 passengers across the sound."]


@pytest.fixture(scope="module")
def embedder(minilm: Model) -> TorchEmbedder:
    return TorchEmbedder(minilm, dtype=torch.float32)


def test_vectors_are_those_of_transformers(minilm: Model, embedder: TorchEmbedder) -> None:
    """One text at a time, without padding: mean of the hidden states, length 1."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm.payload, local_files_only=True)
    module = AutoModel.from_pretrained(minilm.payload, local_files_only=True).eval()
    vectors_ND = embedder.embed(TEXTS)
    for text, vector_D in zip(TEXTS, vectors_ND, strict=True):
        with torch.no_grad():
            hidden_TD = module(**tokenizer(text, truncation=True, max_length=256, return_tensors="pt")).last_hidden_state[0]
        mean_D = hidden_TD.mean(0)
        np.testing.assert_allclose(vector_D, (mean_D / mean_D.norm()).numpy(), atol=1e-5)


def test_shape_and_length(embedder: TorchEmbedder) -> None:
    vectors_ND = embedder.embed(TEXTS)
    assert vectors_ND.shape == (6, 384) == (len(TEXTS), embedder.dimensions) and vectors_ND.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors_ND, axis=1), 1, atol=1e-6)
    assert embedder.embed([]).shape == (0, 384)


def test_batches_do_not_change_vectors(minilm: Model, embedder: TorchEmbedder) -> None:
    np.testing.assert_allclose(TorchEmbedder(minilm, batch_tokens=1, dtype=torch.float32).embed(TEXTS), embedder.embed(TEXTS), atol=1e-6)


def test_bfloat16_moves_cosines_little(minilm: Model, embedder: TorchEmbedder) -> None:
    """8 bits of mantissa: 2**-8 = 0.004 a product, averaged out over 384 dimensions and some tokens."""
    rounded = TorchEmbedder(minilm, dtype=torch.bfloat16)
    exact_NN, rounded_NN = (vectors @ vectors.T for vectors in (embedder.embed(TEXTS), rounded.embed(TEXTS)))
    assert 0 < np.abs(exact_NN - rounded_NN).max() < 0.01
    np.testing.assert_allclose(np.diag(rounded_NN), 1, atol=1e-6)
    assert rounded.identity == {**embedder.identity, "dtype": "bfloat16"}


def test_longer_text_is_cut(minilm: Model, embedder: TorchEmbedder) -> None:
    long, longer = embedder.embed(["quay " * 300, "quay " * 300 + "lighthouse " * 50])
    np.testing.assert_array_equal(long, longer)
    short = TorchEmbedder(minilm, max_tokens=8)
    assert short.identity["max_tokens"] == 8 and short.identity != embedder.identity


def test_meaning_is_near(embedder: TorchEmbedder) -> None:
    question, answer, other = embedder.embed(["How do I pay?", "Cash and cards are accepted.", "The bell weighs 410 kilograms."])
    assert question @ answer > question @ other + 0.2


def test_half_a_surrogate_pair_is_no_reason_to_fail(embedder: TorchEmbedder) -> None:
    assert np.isfinite(embedder.embed(["fog \ud800"])).all()


def test_identity_names_the_model(minilm: Model, embedder: TorchEmbedder) -> None:
    assert embedder.identity == {"engine": "torch", "model": minilm.digest, "pooling": "mean", "max_tokens": 256, "dtype": "float32"}


@dataclass
class _Described:
    """What TorchEmbedder asks of a Model before it loads it."""

    payload: Path
    head: str
    id: str = "model/other"


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has the head `lm`, not `embedder`"):
        TorchEmbedder(_Described(tmp_path, "lm"))  # type: ignore[arg-type]
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}')
    with pytest.raises(UsageError, match="trained with pooling_mode_cls_token"):
        TorchEmbedder(_Described(tmp_path, "embedder"))  # type: ignore[arg-type]


# -- the cache ------------------------------------------------------------------------------------------------------------


class Lengths:
    """A text's vector is its length and its first character; remembers what it was asked."""

    dimensions = 2

    def __init__(self, name: str = "lengths"):
        self.name = name
        self.asked: list[list[str]] = []

    @property
    def identity(self) -> Identity:
        return {"engine": self.name}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.asked.append(list(texts))
        return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32)


def test_only_new_texts_are_embedded(tmp_path: Path) -> None:
    inner = Lengths()
    for texts in (["one", "three"], ["three", "four!", "one", "four!"], ["one"]):
        np.testing.assert_array_equal(CachedEmbedder(inner, tmp_path / "cache" / "vectors.sqlite").embed(texts), Lengths().embed(texts))
    assert inner.asked == [["one", "three"], ["four!"]]


def test_the_cache_is_transparent(tmp_path: Path) -> None:
    inner = Lengths()
    cached = CachedEmbedder(inner, tmp_path / "vectors.sqlite")
    assert (cached.identity, cached.dimensions, cached.embed([]).shape) == (inner.identity, 2, (0, 2))


def test_another_embedder_has_its_own_vectors(tmp_path: Path) -> None:
    CachedEmbedder(Lengths(), tmp_path / "vectors.sqlite").embed(["one"])
    other = Lengths("other")
    CachedEmbedder(other, tmp_path / "vectors.sqlite").embed(["one"])
    assert other.asked == [["one"]]


def test_a_damaged_cache_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "vectors.sqlite").write_bytes(b"this is no database, " * 100)
    np.testing.assert_array_equal(CachedEmbedder(Lengths(), tmp_path / "vectors.sqlite").embed(["one"]), [[3, ord("o")]])


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    np.testing.assert_array_equal(CachedEmbedder(Lengths(), tmp_path / "file" / "vectors.sqlite").embed(["one"]), [[3, ord("o")]])


def test_real_vectors_come_back_bit_for_bit(embedder: TorchEmbedder, tmp_path: Path) -> None:
    first = CachedEmbedder(embedder, tmp_path / "vectors.sqlite").embed(TEXTS)
    again = CachedEmbedder(embedder, tmp_path / "vectors.sqlite").embed(TEXTS[::-1])
    np.testing.assert_array_equal(first, again[::-1])
