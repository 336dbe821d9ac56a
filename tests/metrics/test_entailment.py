"""Entailment's arithmetic by hand."""

import math

import pytest

from mygpt.metrics.entailment import Nli, mutual_entailment, relation, relation_counts

YES, MAYBE, NO = Nli(0.8, 0.1, 0.1), Nli(0.2, 0.7, 0.1), Nli(0.1, 0.1, 0.8)


@pytest.mark.parametrize(
    ("forward", "backward", "expected"),
    [
        (YES, YES, "same"),
        (YES, MAYBE, "says more"),  # "an oak fell" for "a tree fell"
        (MAYBE, YES, "says less"),
        (MAYBE, MAYBE, "neither"),
        (NO, MAYBE, "contradicts"),
        (YES, NO, "contradicts"),  # one direction is enough
    ],
)
def test_relations(forward: Nli, backward: Nli, expected: str) -> None:
    assert relation(forward, backward) == expected


def test_labels_and_ties() -> None:
    assert (YES.label, MAYBE.label, NO.label) == ("entailment", "neutral", "contradiction")
    assert Nli(1 / 3, 1 / 3, 1 / 3).label == "neutral" and Nli(0.4, 0.2, 0.4).label == "contradiction"  # the one that claims least


def test_mutual_entailment_is_as_sure_as_the_weaker_direction() -> None:
    assert mutual_entailment(YES, MAYBE) == mutual_entailment(MAYBE, YES) == 0.2


def test_counts_show_what_did_not_occur() -> None:
    assert relation_counts(["same", "neither", "same"]) == {"same": 2, "says more": 0, "says less": 0, "contradicts": 0, "neither": 1}


@pytest.mark.parametrize("values", [(0.5, 0.5, 0.5), (1.2, -0.1, -0.1), (math.nan, 0.5, 0.5)])
def test_what_is_no_distribution_is_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="not probabilities that sum to 1"):
        Nli(*values)
