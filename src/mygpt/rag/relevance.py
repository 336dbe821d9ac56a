"""Is there anything here to answer from? A number for a question and what was found for it; too low means: do not answer.

    relevance = 0.6 * best sentence + 0.4 * known

`known` is the share of the question's IDF weight whose words occur in the documents at all. The best sentence is the one, among the
passages found, with the highest mean of cosine and IDF coverage with the question (read with its heading); it must be able to hold
the answer: who asks for an email address needs an @, who asks for a price needs money.

Source    expected answer types: Li and Roth 2002, "Learning question classifiers", COLING (only the types a pattern can see)
We differ from a threshold on the distance of the nearest vector: a question on the documents' subject that they do not answer lies
          as near as one that they do
Origin    of the constants: fitted by `benchmarks/rag.py` on the httpx documentation and Cranfield: weights by logistic regression,
          the threshold so that 93 % of the questions whose answer was found are answered
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mygpt.artifacts.corpus import Passage
from mygpt.artifacts.sentences import split_sentences
from mygpt.infer.protocols import Embedder
from mygpt.rag.index import heading
from mygpt.rag.search import Hit
from mygpt.rag.words import TermWeights, terms

SENTENCE_SHARE = 0.6
MIN_RELEVANCE = 0.42
_PASSAGES_READ = 3

_COUNT = r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|hundred|half|once|twice|none)\b"
_TIME = (
    r"\d|day\b|days\b|\b(?:january|february|march|april|may|june|july|august|september|october|november|december|morning|noon|midnight|evening|winter|"
    r"summer|spring|autumn|daily|weekly|monthly|yearly|after|before|when|until|every)\b"
)
_EXPECTED = [  # of the question -> of a sentence that may hold its answer
    (r"\be-?mail address", r"\S@\S"),
    (r"\b(?:phone|telephone) number", r"\d[\d ()-]{5,}\d"),
    (
        r"\bhow much\b.*\b(?:costs?|pay|price|charged?|fee|buy)\b|\b(?:what|which)\b.*\b(?:price|cost|fee|fare)\b",
        r"[£€$]|\b(?:free|euros?|pounds?|dollars?)\b",
    ),
    (r"\bhow old\b|\bwhat age\b", r"\b(?:years? old|aged?|born|built|founded|young|birthday)\b|\b\d+ years\b"),
    (r"\bhow (?:many|much|long|far|fast|heavy|high|deep|big|large|wide|tall|often|soon|quickly)\b", _COUNT),
    (r"\bwhen\b|\bwhat (?:time|year|date|day)\b|\bwhich (?:year|day|month)s?\b", _TIME),
]


@dataclass(frozen=True)
class Reading:
    """A sentence that may hold the answer: `passage.text[start:end]`."""

    passage: Passage
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.passage.text[self.start : self.end]

    @property
    def with_heading(self) -> str:
        return f"{heading(self.passage)}\n{self.text}"


@dataclass(frozen=True)
class Relevance:
    sentence: float  # of the best sentence, 0 to 1
    known: float  # share of the question's weight, 0 to 1
    best: Reading | None = None  # that sentence

    @property
    def score(self) -> float:
        return combine(self.sentence, self.known)


def combine(sentence: float, known: float, *, sentence_share: float = SENTENCE_SHARE) -> float:
    return sentence_share * sentence + (1 - sentence_share) * known


def relevance_all(questions: Sequence[str], found: Sequence[Sequence[Hit]], *, weights: TermWeights, embedder: Embedder) -> list[Relevance]:
    """One Relevance per question; the sentences of all questions are embedded together."""
    readings = [_readings(question, hits) for question, hits in zip(questions, found, strict=True)]
    order = sorted({reading.with_heading for found_here in readings for reading in found_here} | set(questions))
    vectors = dict(zip(order, embedder.embed(order), strict=True)) if order else {}
    judged = []
    for question, found_here in zip(questions, readings, strict=True):
        wanted = set(terms(question))
        fits = [_fit(vectors[question] @ vectors[r.with_heading], weights.coverage(wanted, terms(r.with_heading))) for r in found_here]
        best = max(range(len(fits)), key=fits.__getitem__, default=None)
        sentence = 0.0 if best is None else max(0.0, fits[best])
        judged.append(Relevance(sentence, weights.known_share(wanted), None if best is None else found_here[best]))
    return judged


def _fit(cosine: float, coverage: float) -> float:
    return (float(cosine) + coverage) / 2


def _readings(question: str, hits: Sequence[Hit]) -> list[Reading]:
    """The sentences found that could hold the answer, each with its heading."""
    expected = next((answer for asked, answer in _EXPECTED if re.search(asked, question, re.IGNORECASE)), "")
    readings = [Reading(hit.passage, start, end) for hit in hits[:_PASSAGES_READ] for start, end in split_sentences(hit.passage.text)]
    return [reading for reading in readings if re.search(expected, reading.text, re.IGNORECASE)]
