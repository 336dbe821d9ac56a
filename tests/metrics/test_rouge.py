"""ROUGE against Google's rouge-score on the same texts, and by hand."""

import random

import pytest

from mygpt.metrics.rouge import longest_common_subsequence, rouge_l, rouge_n

rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")

_WORDS = ["the", "client_server", "pool", "times-out", "after", "5", "seconds,", "unless", "you", "set", "it.", "A", "new", "PoolTimeout"]


def test_equals_rouge_score_on_random_texts() -> None:
    rng = random.Random(7)
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    for _ in range(200):
        answer, reference = (" ".join(rng.choices(_WORDS, k=rng.randint(0, 30))) for _ in range(2))
        expected = scorer.score(reference, answer)
        for name, ours in (
            ("rouge1", rouge_n(answer, reference, 1)),
            ("rouge2", rouge_n(answer, reference, 2)),
            ("rougeL", rouge_l(answer, reference)),
        ):
            assert (ours.precision, ours.recall, ours.f) == pytest.approx(tuple(expected[name]), abs=1e-12)


def test_lin_2004_example() -> None:
    """Section 3.1: S1 "police killed the gunman", S2 "police kill the gunman": 3/4; S3 "the gunman kill police": 2/4."""
    reference = "police killed the gunman"
    assert rouge_l("police kill the gunman", reference).f == pytest.approx(3 / 4)
    assert rouge_l("the gunman kill police", reference).f == pytest.approx(2 / 4)


def test_a_repeated_word_is_clipped() -> None:
    assert rouge_n("the the the the", "the cat", 1).precision == pytest.approx(1 / 4)


def test_other_scripts_count() -> None:
    assert rouge_l("Москва столица России", "столица России").recall == 1.0


def test_subsequence_equals_the_textbook_table() -> None:
    rng = random.Random(3)
    for _ in range(100):
        a, b = (rng.choices("abcd", k=rng.randint(0, 90)) for _ in range(2))  # longer than one machine word
        row = [0] * (len(b) + 1)
        for x in a:
            diagonal = 0
            for j, y in enumerate(b, start=1):
                diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
        assert longest_common_subsequence(a, b) == row[-1]
