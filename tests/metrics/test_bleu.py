"""BLEU: the issue's sentences, by hand, and against sacrebleu."""

import math
import random

import numpy as np
import pytest

from mygpt.metrics.bleu import bleu_of_sums, bleu_statistics, corpus_bleu, sentence_bleu, whitespace_bleu
from mygpt.metrics.randomisation import approximate_randomisation

metrics = pytest.importorskip("sacrebleu.metrics")

TEA = "I am very happy to say that I am drinking a warm cup of tea."


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("I am very happy that I am drinking a cup of tea.", 0.495),
        ("I am very happy that I am drinking a warm cup of tea.", 0.730),
        ("I am very happy to say that I am drinking a warm tea.", 0.798),
        (TEA, 1.000),
    ],
)
def test_warm_cup_of_tea(answer: str, score: float) -> None:
    assert whitespace_bleu([answer], [[TEA]]).score == pytest.approx(score, abs=0.0005)


def test_warm_cup_of_tea_by_hand() -> None:
    """12 words against 15: BP = exp(1 - 15/12). Of 12, 11, 10, 9 n-grams 12, 9, 6, 3 are the reference's."""
    found = whitespace_bleu(["I am very happy that I am drinking a cup of tea."], [[TEA]])
    assert found.brevity_penalty == pytest.approx(math.exp(-1 / 4))
    assert found.precisions == pytest.approx((12 / 12, 9 / 11, 6 / 10, 3 / 9))
    assert found.score == pytest.approx(math.exp(-1 / 4) * (9 / 11 * 6 / 10 * 3 / 9) ** (1 / 4))


def test_papineni_2002_example() -> None:
    """Section 2.1: of several references the larger count of any holds, so seven times "the" has the modified precision 2/7."""
    references = ["the cat is on the mat", "there is a cat on the mat"]
    assert whitespace_bleu(["the the the the the the the"], [references]).precisions[0] == pytest.approx(2 / 7)


def _texts(rng: random.Random, num_texts: int) -> tuple[list[str], list[list[str]]]:
    def text(shortest: int) -> str:
        return " ".join(rng.choices(["a", "b", "c,", "D", "e."], weights=[5, 3, 2, 1, 1], k=rng.randint(shortest, 25)))

    return [text(0) for _ in range(num_texts)], [[text(1) for _ in range(rng.randint(1, 3))] for _ in range(num_texts)]


def test_whitespace_bleu_equals_sacrebleu_without_its_words_and_smoothing() -> None:
    rng = random.Random(5)
    positive = 0
    for _ in range(60):
        answers, references = _texts(rng, rng.randint(1, 6))
        ours = whitespace_bleu(answers, references)
        streams = [[some[k] if k < len(some) else None for some in references] for k in range(3)]
        theirs = metrics.BLEU(tokenize="none", smooth_method="none", force=True).corpus_score(answers, streams)
        assert ours.points == pytest.approx(theirs.score, abs=1e-9)
        assert ours.brevity_penalty == pytest.approx(theirs.bp)
        positive += ours.score > 0
    assert positive > 30


def test_sums_of_statistics_give_the_corpus_score() -> None:
    """What a bootstrap resamples is the score itself; smoothed orders and texts too short for four words included."""
    rng = random.Random(6)
    for size in (1, 1, 1, 2, 3, 8):
        answers, references = _texts(rng, size)
        sums_K = bleu_statistics(answers, references).sum(axis=0)
        assert float(bleu_of_sums(sums_K)) == pytest.approx(corpus_bleu(answers, references).score, abs=1e-9)
    both_2K = np.stack([bleu_statistics([a], [[TEA]])[0] for a in ("a warm cup of milk", "warm tea now or never")])
    expected = [corpus_bleu([a], [[TEA]]).score for a in ("a warm cup of milk", "warm tea now or never")]
    assert bleu_of_sums(both_2K) == pytest.approx(expected)
    assert 0 < expected[1] < expected[0]


def test_randomisation_of_the_corpus_score() -> None:
    """Twelve texts: one system has all right, the other drops a word from each: only swaps of all or none differ as much."""
    references = [f"the {number} cups of warm tea are on the table now" for number in range(12)]
    shorter = [reference.replace(" warm", "") for reference in references]
    right_NK, short_NK = (bleu_statistics(answers, [[r] for r in references]) for answers in (references, shorter))
    assert approximate_randomisation(right_NK, short_NK, bleu_of_sums, num_samples=2_000) < 0.01
    assert approximate_randomisation(right_NK, right_NK, bleu_of_sums, num_samples=200) == 1.0


def test_signature_and_result_are_sacrebleus() -> None:
    answers, references = ["The tea, warm.", "It is cold."], [["The warm tea."], ["It's cold.", "It is very cold."]]
    found = corpus_bleu(answers, references)
    assert found.signature.startswith("nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert found.score == pytest.approx(
        metrics.BLEU().corpus_score(answers, [[r[0] for r in references], [None, references[1][1]]]).score / 100
    )
    assert "|eff:yes|" in sentence_bleu("The tea.", ["The tea."]).signature
    assert sentence_bleu("The tea.", ["The tea."]).score == 1.0  # three words: up to order 3
    assert corpus_bleu(["北京是首都"], [["北京是首都"]], tokenizer="zh").score == pytest.approx(1.0)


def test_saying_nothing_scores_0() -> None:
    assert corpus_bleu(["", ""], [["some words here now"], ["b"]]).score == whitespace_bleu([""], [["b"]]).score == 0.0


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="2 answers, 1 references"):
        corpus_bleu(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="0 answers, 0 references"):
        whitespace_bleu([], [])
    with pytest.raises(ValueError, match="answer 1 of 2 has 0 references"):
        whitespace_bleu(["a", "b"], [["a"], []])
    with pytest.raises(ValueError, match="put it in a list"):
        corpus_bleu(["a"], ["a"])
    with pytest.raises(ValueError, match="not by 'flores200'"):  # it would be downloaded
        corpus_bleu(["a"], [["a"]], tokenizer="flores200")
