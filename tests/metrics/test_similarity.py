"""Embedding similarity by hand, and with the real model on the issue's sentences: the numbers of the page."""

from pathlib import Path

import numpy as np
import pytest

from mygpt.artifacts.model import Model
from mygpt.metrics.bleu import sentence_bleu
from mygpt.metrics.rouge import rouge_l, rouge_n
from mygpt.metrics.similarity import embedding_similarity

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evaluate" / "metrics" / "similarity.md"

TEA = ("Mike really loves drinking tea.", "Mike adores sipping tea.")
COFFEE = ("Mike does not drink coffee.", "Mike does drink coffee.")
HATES = ("Mike really loves drinking tea.", "Mike hates sipping tea.")
NOT_COLD = ("It is cold outside.", "It is not cold outside.")
FREEZING = ("It is cold outside.", "It is freezing out there.")
DATES = ("The meeting is on 3 May.", "The meeting is on 13 May.")
PAIRS = (TEA, COFFEE, HATES, NOT_COLD, FREEZING, DATES)


def test_by_hand() -> None:
    """cos 60 degrees, the same, the opposite."""
    a_ND = np.array([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]])
    b_ND = np.array([[0.5, np.sqrt(3) / 2], [0.6, 0.8], [-1.0, 0.0]])
    assert embedding_similarity(a_ND, b_ND) == pytest.approx([0.5, 1.0, -1.0])


def test_bad_input() -> None:
    unit_ND = np.array([[1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(1, 2\)"):
        embedding_similarity(unit_ND, unit_ND[:1])
    with pytest.raises(ValueError, match=r"\(0, 2\) and \(0, 2\)"):
        embedding_similarity(unit_ND[:0], unit_ND[:0])
    with pytest.raises(ValueError, match=r"reference 1 of 2 has a vector of length 2\.000, not 1"):
        embedding_similarity(unit_ND, np.array([[1.0, 0.0], [0.0, 2.0]]))
    with pytest.raises(ValueError, match="answer 0 of 1 has a vector of length nan"):
        embedding_similarity(np.array([[np.nan, 0.0]]), unit_ND[:1])


@pytest.fixture(scope="module")
def similarity(minilm: Model) -> dict[tuple[str, str], float]:
    import torch

    from mygpt.infer.torch_embedder import TorchEmbedder

    embedder = TorchEmbedder(minilm, dtype=torch.float32)
    first, second = embedder.embed([a for a, _ in PAIRS]), embedder.embed([b for _, b in PAIRS])
    return dict(zip(PAIRS, embedding_similarity(first, second), strict=True))


def test_ngrams_rank_tea_and_coffee_wrongly_and_embeddings_rightly(similarity: dict[tuple[str, str], float]) -> None:
    """The tea sentences mean the same, the coffee sentences contradict each other."""
    for score in (lambda a, b: rouge_n(a, b, 1).f, lambda a, b: rouge_n(a, b, 2).f, lambda a, b: rouge_l(a, b).f):
        assert score(*TEA) < score(*COFFEE)
    assert sentence_bleu(TEA[0], [TEA[1]]).score < sentence_bleu(COFFEE[0], [COFFEE[1]]).score
    assert similarity[TEA] > similarity[COFFEE]


def test_embeddings_fail_on_denial_and_numbers(similarity: dict[tuple[str, str], float]) -> None:
    """What the page confesses: a denial lies closer than a paraphrase, and the right order of tea and coffee is a near thing."""
    assert similarity[NOT_COLD] > similarity[FREEZING]
    assert similarity[TEA] - similarity[COFFEE] < 0.05
    assert similarity[HATES] > similarity[COFFEE]
    assert min(similarity[pair] for pair in (COFFEE, HATES, NOT_COLD, DATES)) > 0.8


def test_the_table_of_the_page(similarity: dict[tuple[str, str], float]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for a, b in PAIRS:
        row = f"| {a} | {b} | {rouge_n(a, b, 1).f:.2f} | {rouge_l(a, b).f:.2f} | {sentence_bleu(a, [b]).score:.2f} | "
        assert row in page, row
        shown = float(page.partition(row)[2].partition(" |")[0])
        assert shown == pytest.approx(similarity[a, b], abs=0.0051), row  # the last digit may round the other way on another machine
