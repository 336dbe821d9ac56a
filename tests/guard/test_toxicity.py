"""The shipped head: on mild sentences of our own, on another embedder, and its card against the measured figures."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mygpt.artifacts.model import Model
from mygpt.core.errors import UsageError
from mygpt.guard.toxicity import CHECK_SENTENCES, Toxicity, stored_head
from mygpt.infer.protocols import Identity
from mygpt.training.probe import load_probe
from tests.guard.stand_in import StandIn

RUDE = [
    "You are an idiot and nobody likes you.",
    "Shut up, you stupid fool.",
    "You damn fool, shut your mouth.",
    "Go to hell, loser.",
    "What a dumb, ugly pig you are.",
]
POLITE = [
    "Thank you for your help with the boxes.",
    "The pump has to be switched off before the lid is opened.",
    "My grandmother bakes bread on Sundays.",
    "I disagree with you, and here is why.",
    "Please close the door when you leave.",
]


@pytest.fixture(scope="module")
def toxicity(minilm: Model) -> Toxicity:
    from mygpt.infer.torch_embedder import TorchEmbedder

    return Toxicity(TorchEmbedder(minilm))


def test_rude_against_polite(toxicity: Toxicity, minilm: Model) -> None:
    """Every rude sentence above every polite one; blank texts are not toxic; the three classes sum to 1."""
    scores = toxicity.score([*RUDE, *POLITE, "", " \n"])
    assert scores[[0, 7]] == pytest.approx([0.89, 0.02], abs=0.015)  # the page's example
    assert scores[:5].min() > 0.5 > scores[5:10].max()
    assert scores[10:].tolist() == [0.0, 0.0]
    classes_NK = toxicity.classes([*RUDE, *POLITE])
    assert toxicity.labels == ("hate", "neither", "offensive")
    assert classes_NK.sum(axis=1) == pytest.approx(1.0)
    assert scores[:10] == pytest.approx(1 - classes_NK[:, 1], abs=0.02)  # other batches, other rounding of bfloat16
    assert toxicity.identity["embedder"]["model"] == minilm.digest


def test_what_the_card_admits(toxicity: Toxicity) -> None:
    """An insult without the words of the list is missed, and a harmless sentence that names a group is flagged."""
    scores = toxicity.score(["He is a worthless piece of trash.", "I am gay and happy."])
    assert scores == pytest.approx([0.07, 0.88], abs=0.02)


class Other:
    def __init__(self, dimensions: int):
        self.dimensions = dimensions

    @property
    def identity(self) -> Identity:
        return {"engine": "other"}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.random.default_rng(0).normal(size=(len(texts), self.dimensions)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("dimensions", "message"), [(384, r"is not minilm .*\(cosine -?0\.[01]\d\)"), (768, "384 dimensions, this embedder's have 768")]
)
def test_another_embedder_is_refused(dimensions: int, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        Toxicity(Other(dimensions))
    assert "minilm" in refused.value.fix


def test_scores_are_those_of_the_linear_head() -> None:
    """At the unit vector of `neither` and at its opposite: softmax(W v + b) computed here."""
    probe = load_probe(stored_head()).probe
    neither = probe.labels.index("neither")
    direction_D = probe.weights_KD[neither] / np.linalg.norm(probe.weights_KD[neither])
    expected = []
    for vector_D in (direction_D, -direction_D):
        powers_K = np.exp(probe.weights_KD @ vector_D + probe.bias_K)
        expected.append(1 - powers_K[neither] / powers_K.sum())
    assert Toxicity(StandIn()).score(["calm", "rotten"]) == pytest.approx(expected, abs=1e-5)


def test_the_file_is_small_and_holds_no_text_of_the_data() -> None:
    stored = load_probe(stored_head())
    assert stored_head().stat().st_size < 10_000
    assert set(stored.about) == {"embedder", "data", "data_sha256", "l2"}
    assert stored.extra.keys() == {"check_vectors"} and len(stored.extra["check_vectors"]) == len(CHECK_SENTENCES)


def test_card_and_page_state_the_measured_figures() -> None:
    repository = Path(__file__).resolve().parents[2]
    measured = json.loads((repository / "benchmarks" / "results" / "toxicity.json").read_text())
    for page in (stored_head().with_name("toxicity_card.md"), repository / "docs" / "guard" / "toxicity.md"):
        text = page.read_text(encoding="utf-8")
        for name in ("auc", "f1", "f1_even", "caught_of_hate", "caught_of_offensive", "flagged_of_neither", "flagged_of_prose"):
            row = next((line for line in text.splitlines() if line.startswith("|") and f"`{name}`" in line), "")
            found = [float(number) for number in re.findall(r"\d\.\d+", row.partition(f"`{name}`")[2])]
            assert found == [round(measured[name][key], 3) for key in ("estimate", "low", "high")], (page.name, name)
        assert f"{measured['ece_even']:.3f}" in text and f"{measured['brier_even']:.3f}" in text
