"""Shared n-grams by hand, and against plain Python sets of words."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mygpt.guard.overlap import NgramIndex, Overlap
from mygpt.metrics.words import words

HOBBS = "Mr Hobbs walks his two dogs along the river every morning before he opens the shop, rain or shine."
PLANTED = f"Yesterday's paper said: {HOBBS.upper()} Nobody knew why."
PARAPHRASE = "Before opening his store, Hobbs takes both of the dogs for a walk by the riverside each morning, whatever the weather."


def test_by_hand() -> None:
    """HOBBS has 19 words. Within four more on the left and three on the right, PLANTED holds all its 7 13-grams."""
    index = NgramIndex.build([PLANTED])
    assert len(words(PLANTED)) == 26
    assert index.num_ngrams == 26 - 13 + 1
    found = index.overlap(HOBBS)
    assert (found.num_words, found.share, found.longest_run, found.positions) == (19, 1.0, 19, ((0, 19),))
    assert NgramIndex.build([HOBBS]).overlap(PLANTED).positions == ((4, 23),)
    assert NgramIndex.build([HOBBS]).overlap(PLANTED).share == 19 / 26


def test_the_example_of_the_page() -> None:
    found = NgramIndex.build([HOBBS]).overlap("So: MR HOBBS walks his two dogs along the river every morning -- before he opens.")
    assert (found.num_words, found.share, found.longest_run, found.positions) == (15, 14 / 15, 14, ((1, 15),))


def test_two_runs_and_the_longest_is_shown() -> None:
    index = NgramIndex.build(["a b c d", "p q r s t"], n=3)
    found = index.overlap("a b c x p q r s y")
    assert found == Overlap(num_words=9, share=7 / 9, longest_run=4, positions=((0, 3), (4, 8)), longest_text="p q r s")


def test_a_paraphrase_is_not_found() -> None:
    """What the method cannot see: the same fact in other words shares no 13 words in a row."""
    assert NgramIndex.build([PARAPHRASE]).overlap(HOBBS).share == 0.0


def test_one_word_changed_in_the_middle_hides_what_is_left_when_halves_are_short() -> None:
    """Of 19 words the 11th is changed: 10 and 8 are left, no run of 13. Sixteen more words make the second part 24."""
    changed = HOBBS.replace("morning", "evening")
    assert NgramIndex.build([changed]).overlap(HOBBS).share == 0.0
    longer = f"{HOBBS} The bell over the door rings, and the first to come in is always the baker."
    assert NgramIndex.build([longer.replace("morning", "evening")]).overlap(longer).share == pytest.approx(24 / 35)


def test_short_texts_are_found_whole() -> None:
    items = NgramIndex.build(["What is the capital of France?", HOBBS])
    met = items.met_in(["Quiz night. What is the capital of FRANCE -- anyone?"])
    assert met.overlap("What is the capital of France?").share == 1.0
    assert met.overlap(HOBBS).share == 0.0
    assert items.met_in(["What is the capital of Spain?"]).num_ngrams == 0


def test_nothing_runs_from_one_text_into_the_next() -> None:
    items = NgramIndex.build(["one two three four"], n=4)
    assert items.met_in(["zero one two", "three four five"]).num_ngrams == 0
    assert items.met_in(["zero one two three four five"]).num_ngrams == 1
    assert items.met_in(["one two \x01 three four"]).num_ngrams == 1  # the mark between texts means nothing inside one


def test_phrases_of_a_template_are_left_out() -> None:
    frame = "Read this sentence and say whether it is true or false, with one word only: "
    items = [frame + f"number {i} comes before number {i + 1} when we count upwards by one from nothing at all" for i in range(30)]
    assert NgramIndex.build(items).met_in([frame]).num_ngrams == 3
    assert NgramIndex.build(items, most_texts=10).met_in([frame]).num_ngrams == 0
    assert NgramIndex.build(items, most_texts=10).met_in([items[4]]).overlap(items[4]).share > 0.5


def _plain(text: str, n: int) -> set[str]:
    found = [word.replace("ς", "σ") for word in words(text)]
    return {" ".join(found[i : i + n]) for i in range(len(found) - n + 1)}


def test_against_sets_of_strings() -> None:
    """Texts of a small vocabulary, short ones and one of 300,000 characters, so that pieces are cut."""
    rng = random.Random(1)
    vocabulary = ["the", "a", "pump", "Valve", "runs", "and", "stops", "at", "40", "bar", "Öl", "naïve", "东京", "στάση"]
    texts = [" ".join(rng.choices(vocabulary, k=rng.randrange(3, 60))) + rng.choice([".", "\n", " – "]) for _ in range(400)]
    texts.insert(200, " ".join(rng.choices(vocabulary, k=60_000)))
    items = [" ".join(rng.choices(vocabulary, k=40)) for _ in range(300)] + [texts[200][150_000:150_400], texts[7]]
    seen = set().union(*(_plain(text, 4) for text in texts))
    wanted = set().union(*(_plain(item, 4) for item in items))
    index = NgramIndex.build(items, n=4)
    assert index.num_ngrams == len(wanted)
    assert index.met_in(texts).num_ngrams == len(wanted & seen)
    assert len(NgramIndex.build(texts, n=4).hashes[4]) == len(seen)
    assert 0 < len(wanted & seen) < len(wanted)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=80), st.text(alphabet="aÅΣςİéı\u0301½™…’ 日本テ\u0e01ﬁ\n\x01-_'K\u1112\u1161", max_size=40))
def test_any_text_has_the_words_that_metrics_words_finds(one: str, other: str) -> None:
    for text in (one, other, f"{one} {other}"):
        found = [word.replace("ς", "σ") for word in words(text)]
        index = NgramIndex.build([text], n=1)
        assert index.num_ngrams == len(set(found))
        assert index.overlap(text).share == (1.0 if found else 0.0)


def test_hashes_are_spread() -> None:
    """Of 200,000 different bigrams none collide, and each of the 16 first nibbles comes up about as often."""
    text = " ".join(f"w{i}" for i in range(200_001))
    (hashes,) = NgramIndex.build([text], n=2).hashes.values()
    assert len(hashes) == 200_000
    shares = np.bincount((hashes >> np.uint64(60)).astype(int), minlength=16) / len(hashes)
    assert np.abs(shares - 1 / 16).max() < 0.004


def test_empty_and_bad_input() -> None:
    assert NgramIndex.build([]).num_ngrams == NgramIndex.build(["", " ?! "]).num_ngrams == 0
    assert NgramIndex.build([]).overlap("anything").share == 0.0
    assert NgramIndex.build(["a b c"], n=2).overlap("").share == 0.0
    assert NgramIndex.build(["a b c"], n=2).met_in([]).num_ngrams == 0
    with pytest.raises(ValueError, match="at least one word, not 0"):
        NgramIndex.build(["a"], n=0)
