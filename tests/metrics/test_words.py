"""Words in any script, by hand."""

import pytest

from mygpt.metrics.words import words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PEP-8, the 2nd", ["pep", "8", "the", "2nd"]),
        ("snake_case", ["snake", "case"]),
        ("Straße Ärger", ["straße", "ärger"]),
        ("北京 2008", ["北", "京", "2008"]),
        ("ﬁne", ["fine"]),  # NFKC takes ligatures apart
        ("…!", []),
    ],
)
def test_by_hand(text: str, expected: list[str]) -> None:
    assert words(text) == expected
