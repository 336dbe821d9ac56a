"""Runs of characters by hand, and against plain Python sets of strings."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mygpt.guard.character_overlap import CharacterIndex
from mygpt.guard.overlap import NgramIndex

HOBBS = "Mr Hobbs walks his two dogs along the river every morning before he opens the shop, rain or shine."  # 98 characters


def test_fifty_characters_by_hand() -> None:
    """98 characters have 49 runs of 50. A text that takes 60 of them between 30 of its own and 10 more: 60 of 100 are not new."""
    index = CharacterIndex.build([HOBBS])
    assert (len(HOBBS), len(index.hashes_R), index.n) == (98, 49, 50)
    assert index.share(HOBBS) == 1.0
    assert index.share("#" * 30 + HOBBS[20:80] + "#" * 10) == pytest.approx(60 / 100)


def test_forty_nine_in_a_row_are_none() -> None:
    index = CharacterIndex.build([HOBBS])
    assert index.share("#" * 20 + HOBBS[10:59] + "#" * 20) == 0.0
    assert index.share("#" * 20 + HOBBS[10:60] + "#" * 20) == pytest.approx(50 / 90)


def test_two_runs_that_overlap_count_each_character_once() -> None:
    """Of "abcdef" in runs of three: "abcd" holds abc and bcd, four characters; "efab" holds none."""
    index = CharacterIndex.build(["abcdef"], n=3)
    assert index.share("abcdxdefx") == pytest.approx(7 / 9)
    assert index.share("efab") == 0.0


def test_what_does_not_matter_and_what_does() -> None:
    index = CharacterIndex.build([HOBBS])
    assert index.share(HOBBS.upper().replace(" ", " \n\t ")) == 1.0  # case and white space
    assert index.share(HOBBS.replace("every morning", "every, morning")) == 0.0  # 49 characters are left before the comma and 49 behind
    assert index.share(HOBBS.replace("two dogs", "two, dogs")) == pytest.approx(76 / 99)
    assert NgramIndex.build([HOBBS], 13).overlap(HOBBS.replace("every morning", "every, morning")).share == 1.0  # words are the same
    assert CharacterIndex.build(["ﬁne １２"], n=6).share("fine 12") == 1.0  # NFKC


def test_short_texts_are_found_whole() -> None:
    index = CharacterIndex.build(["On 31 March.", HOBBS])
    assert index.share("on 31  March.") == 1.0
    assert index.share("On 31 March") == index.share(HOBBS[:40]) == index.share("") == 0.0


def test_nothing_runs_from_one_text_into_the_next() -> None:
    assert CharacterIndex.build(["abc", "def"], n=4).share("abcdef") == 0.0
    assert CharacterIndex.build(["abcx", "def"], n=4).share("abcxdef") == pytest.approx(4 / 7)


def test_against_sets_of_strings() -> None:
    """Texts of few letters and a long one, so that pieces are cut; in four scripts."""
    rng = random.Random(2)
    texts = ["".join(rng.choices("abß東ж", k=rng.randrange(0, 60))) for _ in range(300)]
    texts.append("".join(rng.choices("abcdeж", k=150_000)))
    seen = {text[i : i + 7] for text in texts for i in range(len(text) - 6)}
    index = CharacterIndex.build(texts, n=7)
    assert len(index.hashes_R) == len(seen)
    for text in ("".join(rng.choices("abcdeß東ж", k=90)), texts[-1][65_500:65_600], "abab東" * 20):
        covered = {place for i in range(len(text) - 6) if text[i : i + 7] in seen for place in range(i, i + 7)}
        assert index.share(text) == pytest.approx(len(covered) / len(text))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(max_size=30), st.integers(1, 12))
def test_any_text_is_found_in_itself(text: str, n: int) -> None:
    assert CharacterIndex.build([text], n).share(text) == (1.0 if text.split() else 0.0)


def test_bad_input() -> None:
    assert CharacterIndex.build([]).share(HOBBS) == 0.0
    with pytest.raises(ValueError, match="at least one character, not 0"):
        CharacterIndex.build(["a"], n=0)
