"""ROUGE: overlap of an answer with a reference, in n-grams (ROUGE-N) or in order (ROUGE-L).

ROUGE-N  matches = sum over n-grams of min(count in answer, count in reference): a word repeated does not count twice (clipping)
ROUGE-L  matches = length of the longest common subsequence of words, over the whole text
P = matches / answer's, R = matches / reference's, F = 2PR / (P + R)

Source: Lin 2004, "ROUGE: a package for automatic evaluation of summaries", sections 2 and 3 (beta = 1); the subsequence in
bit-parallel form from Hyyrö 2004, "Bit-parallel LCS-length computation revisited". Signature: no stemming, words as in `metrics/words`.
"""

from collections import Counter
from dataclasses import dataclass

from mygpt.metrics.words import words


@dataclass(frozen=True)
class Rouge:
    precision: float
    recall: float

    @property
    def f(self) -> float:
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def rouge_n(answer: str, reference: str, n: int) -> Rouge:
    answer_grams, reference_grams = _grams(words(answer), n), _grams(words(reference), n)
    return _rouge((answer_grams & reference_grams).total(), answer_grams.total(), reference_grams.total())


def rouge_l(answer: str, reference: str) -> Rouge:
    answer_words, reference_words = words(answer), words(reference)
    return _rouge(longest_common_subsequence(answer_words, reference_words), len(answer_words), len(reference_words))


def longest_common_subsequence(a: list[str], b: list[str]) -> int:
    """Its length. Bit i of `open_bits` is 0 when the best match so far grows at a[i]; one pass over b."""
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    every = (1 << len(a)) - 1
    open_bits = every
    for word in b:
        matched = open_bits & places.get(word, 0)
        open_bits = ((open_bits + matched) | (open_bits - matched)) & every
    return len(a) - open_bits.bit_count()


def _grams(tokens: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def _rouge(matches: int, in_answer: int, in_reference: int) -> Rouge:
    return Rouge(matches / max(in_answer, 1), matches / max(in_reference, 1))
