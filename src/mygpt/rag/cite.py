"""After an answer is written: for each of its sentences, the place in the sources that supports it, or the mark "unsupported".

Every sentence, and every pair of neighbouring sentences, of the passages that the answer was given from is a candidate. Those that
contradict the sentence (`rag/contradict`) are out. The score of the others is

    0.5 * share of the sentence's IDF weight that stands in the candidate + 0.5 * cosine of the two - 4 * foreign

and the best one is cited when its score reaches `SUPPORT`. `foreign` is how much more alike the two become when the most foreign
word of the sentence, one that the candidate lacks, is taken out: a synonym belongs there, a swapped fact does not. Greetings and
sentences without content are left unmarked.

Source    answer-side alignment as in RAGFlow (sentence by sentence, lexical and vector similarity mixed, threshold); the question
          of what a citation must do, precision and recall of citations, from Gao et al. 2023, arXiv:2305.14627 (ALCE)
We differ words count as much as vectors, since similar is not supported; contradictions are vetoed and foreign words penalised; the
          threshold does not sink until something is cited
Origin    of the constants below: fitted by `benchmarks/rag.py` on 54 questions about the httpx documentation, each with three true answers
          and two false ones that differ in a word or a number, for the best recall at a precision of at least 0.88
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from mygpt.artifacts.corpus import Passage, Span
from mygpt.artifacts.search_index import SearchIndex
from mygpt.artifacts.sentences import split_sentences
from mygpt.infer.protocols import Citation, Embedder
from mygpt.rag.contradict import Claim, contradiction, misplaced_number
from mygpt.rag.index import heading
from mygpt.rag.words import FRAMING, TermWeights, names, terms

LEXICAL_SHARE = 0.5
FOREIGN_WEIGHT = 4.0
SUPPORT = 0.6
_MIN_COVERAGE = 0.3  # below it a candidate is not worth an embedding
_CANDIDATES = 6  # per sentence that get an embedding
_STRANGE_WORDS = 8  # of a sentence that are tried
_PAIR_GAIN = 0.08  # two sentences must be better than one by this much
_FEW_TERMS = 4  # with fewer, a sentence is read together with the question: "30 days."
_GREETING = re.compile(
    r"\W*(?:sure|certainly|of course|okay|ok|yes|no|hello|hi|thanks|thank you|great question|good question|you're welcome|here is|here's"
    r"|here are|i hope|i don't know|i do not know|i'm sorry|i am sorry|let me know|feel free)\b(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_ABOUT_THE_TEXT = re.compile(
    r"\b(?:text|passage|document|context|information|source)s?\b.*\b(?:not|n't|no)\b.*"
    r"\b(?:mention|say|state|specify|provide|contain|give|include)\w*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Answered:
    """An answer with what it was given from."""

    question: str
    text: str
    passages: Sequence[Passage]


@dataclass(frozen=True)
class _Candidate:
    passage: Passage
    start: int  # in the passage
    end: int
    num_sentences: int

    @property
    def text(self) -> str:
        return self.passage.text[self.start : self.end]


@dataclass(frozen=True)
class _Sentence:
    start: int  # in the answer
    end: int
    said: str  # what it claims
    read: str  # what is compared: the same, with the question where it is short
    fitting: tuple[tuple[_Candidate, float], ...]  # candidates with their coverage, best first


@dataclass(frozen=True)
class Match:
    """A sentence of an answer beside its best candidate."""

    start: int  # in the answer
    end: int
    candidate: _Candidate | None
    coverage: float
    cosine: float
    foreign: float = 0.0

    @property
    def score(self) -> float:
        return combine(self.coverage, self.cosine, self.foreign) if self.candidate else 0.0


def combine(
    coverage: float, cosine: float, foreign: float, *, lexical_share: float = LEXICAL_SHARE, foreign_weight: float = FOREIGN_WEIGHT
) -> float:
    return lexical_share * coverage + (1 - lexical_share) * cosine - foreign_weight * foreign


Marks = tuple[tuple[Citation, ...], tuple[tuple[int, int], ...]]  # citations, and the ranges of unsupported sentences


def cite(answered: Answered, *, index: SearchIndex, weights: TermWeights, embedder: Embedder, support: float = SUPPORT) -> Marks:
    return cite_all([answered], index=index, weights=weights, embedder=embedder, support=support)[0]


def cite_all(
    answers: Sequence[Answered], *, index: SearchIndex, weights: TermWeights, embedder: Embedder, support: float = SUPPORT
) -> list[Marks]:
    """Citations and unsupported ranges of each answer; sentences of all answers are embedded together."""
    marks: list[Marks] = []
    for answered, matches in zip(answers, match_all(answers, weights=weights, embedder=embedder), strict=True):
        citations = tuple(_citation(m, m.candidate, index) for m in matches if m.candidate and m.score >= support)
        unsupported = tuple((m.start, m.end) for m in matches if not m.candidate or m.score < support)
        assert all(0 <= c.start < c.end <= len(answered.text) for c in citations)
        marks.append((citations, unsupported))
    return marks


def match_all(answers: Sequence[Answered], *, weights: TermWeights, embedder: Embedder) -> list[list[Match]]:
    """The best candidate for every sentence with content, before any threshold."""
    lexical = [_lexical_matches(answered, weights) for answered in answers]
    compared = {text for sentences in lexical for s in sentences if s.fitting for text in (s.read, *(c.text for c, _ in s.fitting))}
    vectors = _embed(compared, embedder)
    best: list[list[tuple[_Sentence, Match]]] = []
    for sentences in lexical:
        best.append([])
        for s in sentences:
            tried = [Match(s.start, s.end, c, coverage, float(vectors[s.read] @ vectors[c.text])) for c, coverage in s.fitting]
            best[-1].append((s, max(tried, key=_preferred, default=Match(s.start, s.end, None, 0.0, 0.0))))
    without = {(s, m): _without_each_word(s, m.candidate) for pairs in best for s, m in pairs if m.candidate}
    vectors |= _embed({text for texts in without.values() for text in texts}, embedder)
    return [[replace(m, foreign=_foreign(m, without.get((s, m), []), vectors)) for s, m in pairs] for pairs in best]


def _embed(texts: set[str], embedder: Embedder) -> dict[str, np.ndarray]:
    order = sorted(texts)
    return dict(zip(order, embedder.embed(order), strict=True)) if order else {}


def _without_each_word(sentence: _Sentence, candidate: _Candidate) -> list[str]:
    """What is compared, without one of the answer's words that the candidate lacks, once for each."""
    there = {*terms(candidate.text), *terms(heading(candidate.passage)), *FRAMING}
    strange = [m for m in re.finditer(r"\w[\w'’.-]*", sentence.said) if (own := set(terms(m.group()))) and not own & there]
    question = sentence.read.removesuffix(sentence.said)
    return [f"{question}{sentence.said[: m.start()]}{sentence.said[m.end() :]}" for m in strange[:_STRANGE_WORDS]]


def _foreign(match: Match, without: Sequence[str], vectors: dict[str, np.ndarray]) -> float:
    if match.candidate is None:
        return 0.0
    return max(0.0, *(float(vectors[text] @ vectors[match.candidate.text]) - match.cosine for text in without), 0.0)


def _lexical_matches(answered: Answered, weights: TermWeights) -> list[_Sentence]:
    """The sentences that say something, each with the candidates that do not contradict it."""
    candidates = [c for passage in answered.passages for c in _candidates(passage)]
    known_names = set().union(*(names(p.text) for p in answered.passages)) if answered.passages else set()
    singles = [c.text for c in candidates if c.num_sentences == 1]
    found = []
    for start, end in split_sentences(answered.text):
        sentence = answered.text[start:end]
        said = _said(sentence)
        if not said:
            continue
        own = Claim(said, known_names)
        is_short = len(own.terms) < _FEW_TERMS
        read = f"{answered.question} {said}".strip() if is_short else said
        fitting = []
        if not misplaced_number(own, singles, weights, question=answered.question if is_short else ""):
            for candidate in candidates:
                around = heading(candidate.passage)
                there = [*terms(candidate.text), *terms(around)]
                coverage = weights.coverage(own.terms - FRAMING, there)
                if is_short:  # few words are soon found somewhere: the question must be found there too
                    coverage = (coverage + weights.coverage({*terms(read)} - FRAMING, there)) / 2
                if coverage >= _MIN_COVERAGE and not contradiction(own, candidate.text, around, weights):
                    fitting.append((candidate, coverage))
        fitting.sort(key=lambda pair: (-pair[1], pair[0].num_sentences))
        found.append(_Sentence(start, end, said, read, tuple(fitting[:_CANDIDATES])))
    return found


def _said(sentence: str) -> str:
    """What a sentence claims; "" for greetings, fillers and remarks that the text says nothing."""
    if greeting := _GREETING.fullmatch(sentence):
        rest = greeting.group("rest").strip(" ,.!:—–-")
        return rest if sentence.lower().lstrip().startswith(("yes", "no")) and len(set(terms(rest)) - FRAMING) >= 2 else ""
    if _ABOUT_THE_TEXT.search(sentence):
        return ""
    return sentence if set(terms(sentence)) - FRAMING else ""


def _candidates(passage: Passage) -> list[_Candidate]:
    ranges = split_sentences(passage.text)
    single = [_Candidate(passage, start, end, 1) for start, end in ranges]
    pairs = [_Candidate(passage, a[0], b[1], 2) for a, b in pairwise(ranges)]
    return [c for c in single + pairs if terms(c.text)]


def _preferred(match: Match) -> tuple[float, int]:
    pair = match.candidate is not None and match.candidate.num_sentences > 1
    return match.score - (_PAIR_GAIN if pair else 0.0), -match.end


def _citation(match: Match, candidate: _Candidate, index: SearchIndex) -> Citation:
    passage = candidate.passage
    start, end = passage.span.start + candidate.start, passage.span.start + candidate.end
    place = index.place(passage.span.document_id, start) or passage.span.place
    span = Span(passage.span.document_id, start, end, place)
    return Citation(match.start, match.end, span, candidate.text, round(match.score, 4), passage.path, passage.title)
