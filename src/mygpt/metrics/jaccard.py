"""Jaccard similarity of two texts: shared words / all words, each counted once.

Source: Jaccard 1912, "The distribution of the flora in the alpine zone". Two texts without words are alike: 1.
"""

from functools import lru_cache

from mygpt.metrics.words import words


def token_jaccard(a: str, b: str) -> float:
    words_a, words_b = _word_set(a), _word_set(b)
    either = len(words_a | words_b)
    return len(words_a & words_b) / either if either else 1.0


@lru_cache(maxsize=65_536)  # compared pairwise, each text is met thousands of times
def _word_set(text: str) -> frozenset[str]:
    return frozenset(words(text))
