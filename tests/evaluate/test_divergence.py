"""KL divergence per token on general text, by hand on made-up distributions, and on two real modules of random weights."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.divergence import DivergenceConfig, divergence
from mygpt.infer.distributions import token_distributions
from mygpt.infer.protocols import Identity
from mygpt.lm.load import Loaded
from tests.infer.tiny_models import byte_tokenizer, tiny_module

CONFIG = DivergenceConfig(piece_characters=300, max_pieces=6, num_resamples=300)


class Repeating:
    """The same distribution everywhere: `rare` in pieces with an odd number, `usual` in the others. A token is 50 characters."""

    def __init__(self, usual: Sequence[float], rare: Sequence[float] | None = None):
        self._usual, self._rare = list(usual), list(rare or usual)

    @property
    def identity(self) -> Identity:
        return {"engine": "repeating", "usual": str(self._usual), "rare": str(self._rare)}

    def token_distributions(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        for number, text in enumerate(texts):
            with np.errstate(divide="ignore"):
                yield np.log(np.tile(self._rare if number % 2 else self._usual, (max(1, len(text) // 50), 1)))


def test_by_hand(run: Run) -> None:
    """p = (1/2, 1/2) and q = (1/4, 3/4) in every piece: KL = ln 2 / 2 + ln(2/3) / 2 = 0.1438 nats; the likeliest token is another."""
    predictions = divergence(CONFIG, base=Repeating([0.5, 0.5]), tuned=Repeating([0.25, 0.75]), run=run)
    facts = predictions.manifest.facts
    expected = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)
    assert facts["kl_per_token"]["estimate"] == pytest.approx(expected) == pytest.approx(0.1438, abs=1e-4)
    assert (facts["kl_per_token"]["low"], facts["kl_per_token"]["high"]) == pytest.approx((expected, expected))
    assert facts["same_token"]["estimate"] == 0.0
    assert len(predictions.rows) == facts["pieces"] == 6 and facts["unparsed"] == 0
    assert facts["tokens"] == sum(row["num_tokens"] for row in predictions.rows)


def test_tokens_weigh_and_not_pieces(run: Run) -> None:
    predictions = divergence(CONFIG, base=Repeating([0.5, 0.5]), tuned=Repeating([0.5, 0.5], [0.25, 0.75]), run=run)
    rows = predictions.rows
    sums = sum(row["kl_per_token"] * row["num_tokens"] for row in rows)
    assert len({row["num_tokens"] for row in rows}) > 1
    assert predictions.manifest.facts["kl_per_token"]["estimate"] == pytest.approx(sums / sum(row["num_tokens"] for row in rows))


def test_what_is_no_number_is_counted_and_left_out(run: Run) -> None:
    """A tuned model that rules out what the base one allows has an infinite KL; not-a-number is no distribution at all."""
    for rare in ([1.0, 0.0], [float("nan"), 1.0]):
        facts = divergence(CONFIG, base=Repeating([0.5, 0.5]), tuned=Repeating([0.5, 0.5], [*rare]), run=run).manifest.facts
        assert (facts["unparsed"], facts["kl_per_token"]["estimate"], facts["kl_per_token"]["items"]) == (3, 0.0, 3)
    facts = divergence(CONFIG, base=Repeating([0.5, 0.5]), tuned=Repeating([float("inf"), 0.0], [0.0, 0.0]), run=run).manifest.facts
    assert (facts["kl_per_token"], facts["unparsed"]) == (None, 6)


def test_other_vocabularies_are_refused(run: Run) -> None:
    with pytest.raises(UsageError, match="of 2 and 3"):
        divergence(CONFIG, base=Repeating([0.5, 0.5]), tuned=Repeating([0.2, 0.3, 0.5]), run=run)


class Tiny:
    def __init__(self, name: str, moved: float):
        model: Any = None
        self._name = name
        self._loaded = Loaded(tiny_module("llama"), byte_tokenizer(), model)
        with torch.no_grad():
            noise = torch.randn(259, 32, generator=torch.Generator().manual_seed(1))
            self._loaded.module.get_output_embeddings().weight += moved * noise

    @property
    def identity(self) -> Identity:
        return {"engine": "tiny", "name": self._name}

    def token_distributions(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        return token_distributions(self._loaded, texts)


def test_the_further_weights_move_the_larger_it_is(run: Run) -> None:
    base = Tiny("base", 0.0)
    config = DivergenceConfig(piece_characters=100, max_pieces=3, num_resamples=100)
    found = [divergence(config, base=base, tuned=Tiny(f"moved {m}", m), run=run).manifest.facts for m in (0.0, 0.02, 0.1)]
    still, little, far = (facts["kl_per_token"]["estimate"] for facts in found)
    assert still == pytest.approx(0.0, abs=1e-6) and 0.0005 < little < far / 5
    assert found[0]["same_token"]["estimate"] == 1.0
