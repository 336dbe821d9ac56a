"""Token F1: how much of the reference's words the answer has, and how little else.

F1 = 2PR / (P + R) over the bags of words left after `normalise`; P = shared / answer's words, R = shared / reference's words.

Source: Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1. When one side has no words, 1 if both have none, else 0, as in SQuAD 2.0
(Rajpurkar et al. 2018, arXiv:1806.03822).
We differ: texts in scripts without spaces are compared by character (see `words`), since splitting at spaces makes a sentence one word.
"""

from collections import Counter

from mygpt.metrics.exact_match import normalise
from mygpt.metrics.words import words


def token_f1(answer: str, reference: str) -> float:
    answer_words, reference_words = _bag(answer), _bag(reference)
    if not answer_words or not reference_words:
        return float(answer_words == reference_words)
    shared = (answer_words & reference_words).total()
    return 2 * shared / (answer_words.total() + reference_words.total())  # = 2PR / (P + R)


def _bag(text: str) -> Counter[str]:
    parts = normalise(text).split()
    return Counter(word for part in parts for word in ([part] if part.isascii() else words(part) or [part]))
