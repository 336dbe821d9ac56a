"""chrF by hand; the arithmetic is sacrebleu's."""

import pytest

from mygpt.metrics.chrf import corpus_chrf, sentence_chrf

pytest.importorskip("sacrebleu")


def test_by_hand() -> None:
    """ "abd" for "abc": 2 of 3 characters, 1 of 2 pairs, 0 of 1 triples, on both sides, so that F is their mean."""
    assert sentence_chrf("abd", ["abc"]).score == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_recall_counts_twice() -> None:
    """ "ab" for "abcd": P = 1, 1; R = 2/4, 1/3 over the two orders that the answer has: F2 = 5PR / (4P + R)."""
    precision, recall = 1.0, (2 / 4 + 1 / 3) / 2
    assert sentence_chrf("ab", ["abcd"]).score == pytest.approx(5 * precision * recall / (4 * precision + recall))


def test_endings_cost_less_than_other_words() -> None:
    assert sentence_chrf("er trinkt Tee", ["sie trinken Tee"]).score > sentence_chrf("er isst Brot", ["sie trinken Tee"]).score


def test_signatures_tell_the_forms_apart() -> None:
    plain, plus = corpus_chrf(["a b"], [["a b", "c"]]), corpus_chrf(["a b"], [["a b"]], word_order=2)
    assert plain.signature.startswith("nrefs:2|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert "|nw:2|" in plus.signature
    assert plain.points == plus.points == pytest.approx(100)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="1 answers, 2 references"):
        corpus_chrf(["a"], [["a"], ["b"]])
    with pytest.raises(ValueError, match="has 0 references"):
        sentence_chrf("a", [])
