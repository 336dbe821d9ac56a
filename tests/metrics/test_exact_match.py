"""Exact match after SQuAD's normalisation, by hand."""

from mygpt.metrics.exact_match import exact_match, normalise


def test_normalise_follows_the_official_order() -> None:
    assert normalise("The cat's  Hat, an apple & a  pear!") == "cats hat apple pear"
    assert normalise("theatre") == "theatre"  # an article only as a whole word


def test_typographic_and_plain_quotes_are_alike() -> None:
    assert exact_match("“Don’t”", '"Don\'t"') == 1.0


def test_another_word_is_no_match() -> None:
    assert exact_match("five seconds", "five minutes") == 0.0
