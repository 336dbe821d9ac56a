"""chrF: F-score of character n-grams (1 to 6), recall counting twice as much as precision. Needs no words, so it suits scripts without
spaces and languages with many endings. chrF++ adds words and pairs of words.

Source: Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation"; chrF++: Popović 2017, "chrF++: words helping character
n-grams"; by sacrebleu (Post 2018, arXiv:1804.08771), whose signature the result keeps.
We differ: 0 to 1, as all metrics here; `points` is the figure of 0 to 100 that sacrebleu prints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mygpt.metrics.references import as_streams, check_references


@dataclass(frozen=True)
class Chrf:
    score: float
    signature: str  # scores under different signatures are not comparable

    @property
    def points(self) -> float:
        return 100 * self.score


def corpus_chrf(answers: Sequence[str], references: Sequence[Sequence[str]], *, word_order: int = 0) -> Chrf:
    """`references[i]`: one or more for `answers[i]`. `word_order=2` is chrF++."""
    check_references("chrF", answers, references)
    chrf = _sacrebleu(word_order)
    return Chrf(chrf.corpus_score(list(answers), as_streams(references)).score / 100, str(chrf.get_signature()))


def sentence_chrf(answer: str, references: Sequence[str], *, word_order: int = 0) -> Chrf:
    check_references("chrF", [answer], [references])
    chrf = _sacrebleu(word_order)
    return Chrf(chrf.sentence_score(answer, list(references)).score / 100, str(chrf.get_signature()))


def _sacrebleu(word_order: int) -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(word_order=word_order)
