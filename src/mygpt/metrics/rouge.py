"""ROUGE: overlap of an answer with a reference, in n-grams (ROUGE-N) or in order (ROUGE-L, ROUGE-Lsum). A diagnostic, not a verdict.

rouge_n     matches = sum over n-grams of min(count in answer, count in reference): a word repeated does not count twice (clipping)
rouge_l     matches = length of the longest common subsequence of words, over the whole text
rouge_lsum  texts are split into sentences at line ends; a reference sentence's matches are the union of its common subsequences with every
            answer sentence, and no word is counted more often than either text has it
P = matches / answer's words (n-grams), R = matches / reference's, F = 2PR / (P + R)

Source: Lin 2004, "ROUGE: a package for automatic evaluation of summaries", sections 2, 3.1 and 3.2 (beta = 1); the subsequence in
bit-parallel form from Hyyrö 2004, "Bit-parallel LCS-length computation revisited".
We differ: two ways to cut words, each with its own name in the result's `signature`. `REFERENCE` is that of Google's rouge-score, whose
figures it equals; `UNICODE`, our default, keeps letters of all scripts (`metrics/words`). `stem=True` cuts words of more than three letters
to their Porter stems, by nltk, as rouge-score's `use_stemmer` does: nltk departs from Porter's paper ("always" keeps its y), and of 24,947
words of real text 450 have another stem in a stemmer that follows it.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mygpt.metrics.words import ascii_words, words

_WHOLE = 3  # letters of a word that is not stemmed


@dataclass(frozen=True)
class Tokenizer:
    name: str
    words: Callable[[str], list[str]]


UNICODE = Tokenizer("unicode", words)
REFERENCE = Tokenizer("reference", ascii_words)


@dataclass(frozen=True)
class Rouge:
    precision: float
    recall: float
    signature: str  # scores under different signatures are not comparable

    @property
    def f(self) -> float:
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def rouge_n(answer: str, reference: str, n: int, *, tokenizer: Tokenizer = UNICODE, stem: bool = False) -> Rouge:
    """The clipped overlap of n-grams. A text shorter than n words has none: 0."""
    if n < 1:
        raise ValueError(f"ROUGE-N needs n of at least 1, not {n}")
    answer_grams, reference_grams = (_grams(_words(text, tokenizer, stem), n) for text in (answer, reference))
    matches = (answer_grams & reference_grams).total()
    return _rouge(matches, answer_grams.total(), reference_grams.total(), signature(str(n), tokenizer, stem=stem))


def rouge_l(answer: str, reference: str, *, tokenizer: Tokenizer = UNICODE, stem: bool = False) -> Rouge:
    answer_words, reference_words = (_words(text, tokenizer, stem) for text in (answer, reference))
    matches = longest_common_subsequence(answer_words, reference_words)
    return _rouge(matches, len(answer_words), len(reference_words), signature("L", tokenizer, stem=stem))


def rouge_lsum(answer: str, reference: str, *, tokenizer: Tokenizer = UNICODE, stem: bool = False) -> Rouge:
    """Lines are sentences: put one on each."""
    answer_lines, reference_lines = ([_words(line, tokenizer, stem) for line in text.split("\n")] for text in (answer, reference))
    left_in_answer = Counter(word for line in answer_lines for word in line)
    left_in_reference = Counter(word for line in reference_lines for word in line)
    in_answer, in_reference, matches = left_in_answer.total(), left_in_reference.total(), 0
    for line in reference_lines:
        for place in sorted(set().union(*(_matched_places(line, other) for other in answer_lines))):
            word = line[place]
            if left_in_answer[word] and left_in_reference[word]:
                left_in_answer[word] -= 1
                left_in_reference[word] -= 1
                matches += 1
    return _rouge(matches, in_answer, in_reference, signature("Lsum", tokenizer, stem=stem))


def signature(variant: str, tokenizer: Tokenizer, *, stem: bool = False) -> str:
    """`signature("L", UNICODE)` -> `"rouge-L|tok:unicode|stem:no|version:1"`."""
    return f"rouge-{variant}|tok:{tokenizer.name}|stem:{'porter' if stem else 'no'}|version:1"


def _words(text: str, tokenizer: Tokenizer, stem: bool) -> list[str]:
    words = tokenizer.words(text)
    return [_stem(word) if len(word) > _WHOLE else word for word in words] if stem else words


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    stemmed: str = _stemmer().stem(word)
    return stemmed


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


def longest_common_subsequence(a: list[str], b: list[str]) -> int:
    """Its length. Bit i of `open_bits` is 0 when the best match so far grows at a[i]; one pass over b."""
    (open_bits,) = deque(_rows(a, b), maxlen=1)
    return len(a) - open_bits.bit_count()


def _rows(a: list[str], b: list[str]) -> Iterator[int]:
    """The bits after 0, 1, ... len(b) words of b; the zeros among the first i bits number the subsequence of a[:i] and that part of b."""
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    every = (1 << len(a)) - 1
    open_bits = every
    yield open_bits
    for word in b:
        matched = open_bits & places.get(word, 0)
        open_bits = ((open_bits + matched) | (open_bits - matched)) & every
        yield open_bits


def _matched_places(reference: list[str], answer: list[str]) -> list[int]:
    """Places in `reference` of one longest common subsequence: read from the ends, the last word of the reference is given up first when
    giving up either keeps the length. Which of several is read moves the union, so this follows rouge-score."""
    rows = list(_rows(reference, answer))

    def length(i: int, j: int) -> int:
        return i - (rows[j] & ((1 << i) - 1)).bit_count()

    i, j, found = len(reference), len(answer), []
    while i and j:
        if reference[i - 1] == answer[j - 1]:
            i, j = i - 1, j - 1
            found.append(i)
        elif length(i, j - 1) > length(i - 1, j):
            j -= 1
        else:
            i -= 1
    return found


def _grams(tokens: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def _rouge(matches: int, in_answer: int, in_reference: int, signature: str) -> Rouge:
    return Rouge(matches / max(in_answer, 1), matches / max(in_reference, 1), signature)
