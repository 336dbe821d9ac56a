"""BLEU: n-grams of an answer that a reference has too, of one to four words, times a penalty for answers that are too short.

BLEU = BP * exp(mean over n = 1..4 of ln(clipped matches_n / n-grams_n)), BP = exp(min(0, 1 - r / c)), c words in the answers, r in the
closest references; counts and lengths are summed over the texts before they are divided.

    corpus_bleu      sacrebleu: words as in mteval-v13a, smoothed; what others publish
    sentence_bleu    the same of one text, over the orders that it is long enough for; too rough to stand alone
    whitespace_bleu  no library, words are what stands between white space, no smoothing: for showing how BLEU works, not for comparing

Source: Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine translation", section 2; words, smoothing (method 3 of
Chen and Cherry 2014) and signature: Post 2018, "A call for clarity in reporting BLEU scores", arXiv:1804.08771, by its own program.
We differ: 0 to 1, as all metrics here; `points` is the figure of 0 to 100 that sacrebleu prints.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mygpt.metrics.references import as_streams, check_references

MAX_ORDER = 4
TOKENIZERS = ("13a", "intl", "zh", "char", "none")  # sacrebleu's others fetch a model or need another package


@dataclass(frozen=True)
class Bleu:
    score: float
    precisions: tuple[float, ...]  # of order 1 to 4
    brevity_penalty: float
    signature: str  # scores under different signatures are not comparable

    @property
    def points(self) -> float:
        return 100 * self.score


def corpus_bleu(answers: Sequence[str], references: Sequence[Sequence[str]], *, tokenizer: str = "13a", lowercase: bool = False) -> Bleu:
    """`references[i]`: one or more for `answers[i]`."""
    check_references("BLEU", answers, references)
    bleu = _sacrebleu(tokenizer, lowercase=lowercase)
    found = bleu.corpus_score(list(answers), as_streams(references))
    return Bleu(min(found.score / 100, 1.0), tuple(p / 100 for p in found.precisions), found.bp, str(bleu.get_signature()))


def sentence_bleu(answer: str, references: Sequence[str], *, tokenizer: str = "13a", lowercase: bool = False) -> Bleu:
    check_references("BLEU", [answer], [references])
    bleu = _sacrebleu(tokenizer, lowercase=lowercase, effective_order=True)
    found = bleu.sentence_score(answer, list(references))
    return Bleu(min(found.score / 100, 1.0), tuple(p / 100 for p in found.precisions), found.bp, str(bleu.get_signature()))


def bleu_statistics(
    answers: Sequence[str], references: Sequence[Sequence[str]], *, tokenizer: str = "13a", lowercase: bool = False
) -> np.ndarray:
    """(N, 10): matches and n-grams of order 1 to 4, words, words of the closest reference. Their sums are all that BLEU needs."""
    check_references("BLEU", answers, references)
    bleu = _sacrebleu(tokenizer, lowercase=lowercase, effective_order=True)  # the counts are the same
    scores = [bleu.sentence_score(answer, list(some)) for answer, some in zip(answers, references, strict=True)]
    return np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores], dtype=np.float64)


def bleu_of_sums(sums_K: np.ndarray, *, smooth: bool = True) -> np.ndarray:
    """(..., 10) sums of `bleu_statistics` rows -> (...): what a bootstrap or a randomisation test calls thousands of times."""
    matches_O, totals_O = sums_K[..., :MAX_ORDER], sums_K[..., MAX_ORDER : 2 * MAX_ORDER]
    answer_words, reference_words = sums_K[..., -2], sums_K[..., -1]
    orders_missed_O = np.cumsum(matches_O == 0, axis=-1)  # the k-th order without a match counts as 1 / 2^k of one
    matches_O = np.where(matches_O == 0, 0.5**orders_missed_O if smooth else 0.0, matches_O)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_precisions_O = np.log(matches_O / totals_O)
        brevity = np.minimum(0.0, 1 - reference_words / answer_words)
        score = np.exp(brevity + log_precisions_O.mean(axis=-1))
    return np.where((sums_K[..., 0] == 0) | (totals_O == 0).any(axis=-1), 0.0, score)


def whitespace_bleu(answers: Sequence[str], references: Sequence[Sequence[str]]) -> Bleu:
    """0 when some order has no match at all."""
    check_references("BLEU", answers, references)
    sums_K = np.sum([_whitespace_statistics(a, some) for a, some in zip(answers, references, strict=True)], axis=0)
    matches_O, totals_O, (answer_words, reference_words) = sums_K[:MAX_ORDER], sums_K[MAX_ORDER : 2 * MAX_ORDER], sums_K[-2:]
    precisions = tuple(float(m / t) if t else 0.0 for m, t in zip(matches_O, totals_O, strict=True))
    brevity_penalty = float(np.exp(min(0.0, 1 - reference_words / answer_words))) if answer_words else 0.0
    score = float(bleu_of_sums(sums_K, smooth=False))
    num_references = {len(some) for some in references}
    count = str(num_references.pop()) if len(num_references) == 1 else "var"
    return Bleu(score, precisions, brevity_penalty, f"bleu-whitespace|nrefs:{count}|case:mixed|eff:no|tok:whitespace|smooth:none|version:1")


def _whitespace_statistics(answer: str, references: Sequence[str]) -> np.ndarray:
    words, reference_words = answer.split(), [reference.split() for reference in references]
    matches, totals = [], []
    for n in range(1, MAX_ORDER + 1):
        grams = _grams(words, n)
        most: Counter[tuple[str, ...]] = Counter()
        for one in reference_words:
            most |= _grams(one, n)  # the largest count in any reference
        matches.append((grams & most).total())
        totals.append(grams.total())
    closest = min((abs(len(one) - len(words)), len(one)) for one in reference_words)[1]  # of two as close, the shorter
    return np.array([*matches, *totals, len(words), closest], dtype=np.float64)


def _grams(tokens: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def _sacrebleu(tokenizer: str, *, lowercase: bool, effective_order: bool = False) -> Any:
    if tokenizer not in TOKENIZERS:
        raise ValueError(f"BLEU cuts words by one of {', '.join(TOKENIZERS)}, not by {tokenizer!r}")
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenizer, lowercase=lowercase, effective_order=effective_order, force=True)
