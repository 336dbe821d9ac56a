"""Jaccard by hand."""

import pytest

from mygpt.metrics.jaccard import token_jaccard


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("How long is the timeout?", "how long is the default timeout", 5 / 6),
        ("a a a b", "A, B", 1.0),  # each word counts once
        ("red", "blue", 0.0),
        ("", "red", 0.0),
        ("", "!?", 1.0),  # no words on either side
    ],
)
def test_by_hand(a: str, b: str, expected: float) -> None:
    assert token_jaccard(a, b) == token_jaccard(b, a) == pytest.approx(expected)
