"""Words in any script, by hand."""

import pytest

from mygpt.metrics.words import ascii_words, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PEP-8, the 2nd", ["pep", "8", "the", "2nd"]),
        ("snake_case", ["snake", "case"]),
        ("Straße Ärger", ["straße", "ärger"]),
        ("北京 2008", ["北", "京", "2008"]),
        ("ﬁne", ["fine"]),  # NFKC takes ligatures apart
        ("…!", []),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),  # vowel signs and virama belong to the word
        ("שָׁלוֹם עולם", ["שָׁלוֹם", "עולם"]),
        ("한국어 문장", ["한국어", "문장"]),  # written with spaces
        ("กิน", ["ก", "ิ", "น"]),  # Thai: by character, marks too
    ],
)
def test_by_hand(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_ascii_words_are_those_of_rouge_score() -> None:
    assert ascii_words("PEP-8, snake_case Ärger") == ["pep", "8", "snake", "case", "rger"]
    tokenize = pytest.importorskip("rouge_score.tokenize")
    for text in ("PEP-8, snake_case Ärger", "İstanbul 北京 2008", "", " .. ", "don't"):
        assert ascii_words(text) == tokenize.tokenize(text, None)
