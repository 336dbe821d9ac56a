"""Terms, numbers, names and IDF, worked by hand."""

import math
from collections.abc import Callable

import pytest

from mygpt.rag.search import Search
from mygpt.rag.words import TermWeights, identifiers, idf, is_negated, names, numbers, plain_number, spaced, stem, terms, words


@pytest.mark.parametrize(
    "family",
    [
        "close closes closed closing",
        "ticket tickets",
        "stop stops stopped stopping",
        "party parties",
        "cross crosses crossed crossing",
        "box boxes",
    ],
)
def test_forms_of_a_word_share_a_stem(family: str) -> None:
    assert len({stem(word) for word in family.split()}) == 1


def test_different_words_keep_apart() -> None:
    assert len({stem(word) for word in ("bus", "boat", "ring", "rung", "his", "red", "bed", "class", "pass")}) == 9


def test_terms_fold_case_and_diacritics_and_leave_stop_words_out() -> None:
    assert terms("The CAFÉ of the Ferry's crew") == ["caf", stem("ferry"), "crew"]
    assert terms("What is it?") == []


@pytest.mark.parametrize(
    ("one", "other"),
    [("1,000", "1000"), ("09:30", "9:30"), ("2.50", "2.5"), ("£4.20", "4.2"), ("ten", "10"), ("a dozen", "12"), ("third", "3")],
)
def test_one_number_in_two_spellings(one: str, other: str) -> None:
    assert numbers(one) == numbers(other) != set()


def test_numbers_that_differ() -> None:
    assert plain_number("1,5") == "1.5" != plain_number("15")
    assert numbers("no one has a second") == set()
    assert numbers("on 14 March 1987 at 18:10") == {"14", "1987", "18:10"}


def test_names_are_capitals_inside_a_sentence() -> None:
    assert names("Boats leave Gannet Slip at nine. They return to Osmery.") == {stem("gannet"), "slip", stem("osmery")}
    assert names("The crew likes tea.") == set()


def test_identifiers_are_spelt_as_in_code() -> None:
    assert identifiers("Call client.aclose() with max_connections, or httpx[http2].") == {
        "client",
        "aclose",
        "max",
        "connections",
        "httpx",
        "http2",
    }
    assert identifiers("An ordinary sentence. Another one, etc.") == set()


def test_negation() -> None:
    assert is_negated("They don't sail") and is_negated("Nobody sails") and not is_negated("They sail at noon")


def test_unspaced_scripts_become_pairs_and_single_characters() -> None:
    assert words("東京駅へ") == ["東京", "京駅", "駅へ"]
    assert spaced("在東京 now").split() == ["在", "東", "京", "now"]


def test_idf_by_hand() -> None:
    """N = 4 passages: in 1 of them ln(1 + 3.5 / 1.5), in none ln(1 + 4.5 / 0.5) = ln 10."""
    assert idf(4, 1) == pytest.approx(math.log(1 + 3.5 / 1.5))
    assert idf(4, 0) == pytest.approx(math.log(10))


def test_coverage_by_hand(search_in: Callable[..., Search]) -> None:
    """Two passages. "tide" in both: ln(1 + 0.5 / 2.5); "gauge" in one: ln(1 + 1.5 / 1.5) = ln 2; "moon" in none: ln(1 + 2.5 / 0.5)."""
    weights = TermWeights(search_in({"sea.txt": "tide gauge\n\ntide table"}).index)
    tide, gauge, moon = math.log(1.2), math.log(2), math.log(6)
    wanted = terms("tide gauge moon")
    assert weights.coverage(wanted, terms("tide gauge")) == pytest.approx((tide + gauge) / (tide + gauge + moon))
    assert weights.known_share(wanted) == pytest.approx((tide + gauge) / (tide + gauge + moon))
    assert weights.coverage([], ["tide"]) == 0.0
