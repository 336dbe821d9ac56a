"""Perplexity by hand, and its relation to bits per byte."""

import math

import pytest

from mygpt.metrics.bits_per_byte import bits_per_byte
from mygpt.metrics.perplexity import byte_perplexity, token_perplexity, word_perplexity


def test_guessing_among_50_tokens_is_perplexity_50() -> None:
    assert token_perplexity([10 * math.log(1 / 50), 3 * math.log(1 / 50)], [10, 3]) == pytest.approx(50)


def test_pieces_weigh_by_their_length() -> None:
    """1 token at 1/2 and 3 at 1/8: exp((1 ln 2 + 3 ln 8) / 4) = 2^(10/4), not the mean of 2 and 8."""
    assert token_perplexity([math.log(1 / 2), 3 * math.log(1 / 8)], [1, 3]) == pytest.approx(2**2.5)


def test_words_are_between_white_space() -> None:
    """Four words: the ends of the text hold none."""
    assert word_perplexity([4 * math.log(1 / 7)], ["  one  two\nthree four \n"]) == pytest.approx(7)


def test_bytes_give_bits_per_byte() -> None:
    logprobs, num_bytes = [-12.5, -3.25], [7, 4]
    assert math.log2(byte_perplexity(logprobs, num_bytes)) == pytest.approx(bits_per_byte(logprobs, num_bytes))


def test_impossible_text_is_infinitely_surprising() -> None:
    assert token_perplexity([-1e6], [2]) == token_perplexity([-math.inf], [2]) == math.inf


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="2 and 1"):
        token_perplexity([-1.0, -2.0], [1])
    with pytest.raises(ValueError, match="0 and 0"):
        byte_perplexity([], [])
    with pytest.raises(ValueError, match="over 0 words"):
        word_perplexity([-1.0], ["  "])
    with pytest.raises(ValueError, match="piece 1 of 2 is nan"):
        token_perplexity([-1.0, math.nan], [1, 1])
