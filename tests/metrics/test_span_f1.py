"""Entity spans worked by hand."""

import random

import pytest

from mygpt.metrics.span_f1 import EntitySpan, span_f1, span_f1_by_label, spans_of_tags

# "Ada Lovelace met Babbage in London."
GOLD = [EntitySpan("PER", 0, 12), EntitySpan("PER", 17, 24), EntitySpan("LOC", 28, 34)]


def test_only_label_start_and_end_together_are_right() -> None:
    """One right; one too short; one with another label: P = 1/3, R = 1/3."""
    named = [EntitySpan("PER", 0, 3), EntitySpan("PER", 17, 24), EntitySpan("ORG", 28, 34)]
    found = span_f1([named], [GOLD])
    assert (found.num_right, found.precision, found.recall, found.f1) == (
        1,
        pytest.approx(1 / 3),
        pytest.approx(1 / 3),
        pytest.approx(1 / 3),
    )


def test_counted_over_all_texts_and_by_label() -> None:
    """3 right of 4 named, 4 to find: a span of the first text is no match for one of the second."""
    named = [GOLD[:2], [EntitySpan("LOC", 28, 34), EntitySpan("LOC", 0, 4)]]
    gold = [GOLD, [EntitySpan("LOC", 0, 4)]]
    found = span_f1(named, gold)
    assert (found.precision, found.recall, found.f1) == (3 / 4, 3 / 4, 3 / 4)
    by_label = span_f1_by_label(named, gold)
    assert by_label["PER"].f1 == 1.0
    assert (by_label["LOC"].num_right, by_label["LOC"].num_named, by_label["LOC"].num_gold) == (1, 2, 2)


def test_a_span_named_twice_counts_once() -> None:
    assert span_f1([[GOLD[0], GOLD[0]]], [[GOLD[0]]]).precision == 1.0


def test_naming_nothing_scores_0() -> None:
    assert span_f1([[]], [GOLD]).f1 == 0.0


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="1 and 2 texts"):
        span_f1([GOLD], [GOLD, GOLD])
    with pytest.raises(ValueError, match="2 texts with 0 spans"):
        span_f1([[], []], [[], []])
    with pytest.raises(ValueError, match="text 1: the span PER from 5 to 5"):
        span_f1([[], [EntitySpan("PER", 5, 5)]], [GOLD, GOLD])


def test_spans_of_tags_by_hand() -> None:
    """Two neighbours of one kind stay two; an I that continues nothing of its kind is passed over."""
    tags = ["B-PER", "I-PER", "B-PER", "O", "I-LOC", "B-LOC", "I-PER", "I-LOC"]
    assert spans_of_tags(tags) == [EntitySpan("PER", 0, 2), EntitySpan("PER", 2, 3), EntitySpan("LOC", 5, 6)]
    assert spans_of_tags([]) == spans_of_tags(["O"]) == []


def test_spans_of_tags_are_seqevals() -> None:
    """On random sequences, valid or not, strict IOB2."""
    entities = pytest.importorskip("seqeval.scheme").Entities
    scheme = pytest.importorskip("seqeval.scheme").IOB2
    draw = random.Random(0)
    for _ in range(200):
        tags = [draw.choice(["O", "B-X", "I-X", "B-Y", "I-Y"]) for _ in range(draw.randrange(1, 9))]
        (found,) = entities([tags], scheme).entities
        assert [(e.tag, e.start, e.end) for e in found] == [tuple(span) for span in spans_of_tags(tags)], tags
