"""After an answer is written: for each of its sentences, the place in the sources that supports it, or the mark "unsupported".

Every sentence, and every pair of neighbouring sentences, of the passages that the answer was given from is a candidate. Those that
contradict the sentence (`rag/contradict`) are out. The score of the others is

    0.6 * share of the sentence's IDF weight that stands in the candidate + 0.4 * cosine of the two

and the best one is cited when its score reaches `SUPPORT`. Greetings and sentences without content are left unmarked.

Source    answer-side alignment as in RAGFlow (sentence by sentence, lexical and vector similarity mixed, threshold); the question
          of what a citation must do, precision and recall of citations, from Gao et al. 2023, arXiv:2305.14627 (ALCE)
We differ the lexical part counts more, since similar is not supported; contradictions are vetoed; the threshold does not sink until
          something is cited
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mygpt.artifacts.corpus import Passage, Span
from mygpt.artifacts.search_index import SearchIndex
from mygpt.artifacts.sentences import split_sentences
from mygpt.infer.protocols import Citation, Embedder
from mygpt.rag.contradict import Claim, contradiction, misplaced_number
from mygpt.rag.index import heading
from mygpt.rag.words import FRAMING, TermWeights, names, terms

LEXICAL_SHARE = 0.6
SUPPORT = 0.62
_MIN_COVERAGE = 0.3  # below it a candidate is not worth an embedding
_CANDIDATES = 6  # per sentence that get an embedding
_PAIR_GAIN = 0.08  # two sentences must be better than one by this much
_FEW_TERMS = 4  # with fewer, a sentence is read together with the question: "30 days."
_GREETING = re.compile(
    r"\W*(?:sure|certainly|of course|okay|ok|yes|no|hello|hi|thanks|thank you|great question|good question|you're welcome|here is|here's|here are|i hope|"
    r"i don't know|i do not know|i'm sorry|i am sorry|let me know|feel free)\b(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_ABOUT_THE_TEXT = re.compile(
    r"\b(?:text|passage|document|context|information|source)s?\b.*\b(?:not|n't|no)\b.*\b(?:mention|say|state|specify|provide|contain|give|include)\w*", re.I
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
class Match:
    """A sentence of an answer beside its best candidate."""

    start: int  # in the answer
    end: int
    candidate: _Candidate | None
    coverage: float
    cosine: float

    @property
    def score(self) -> float:
        return LEXICAL_SHARE * self.coverage + (1 - LEXICAL_SHARE) * self.cosine if self.candidate else 0.0


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
    texts = {text for sentences in lexical for _, claim, found in sentences for text in (claim, *(_read(c) for c, _ in found)) if found}
    order = sorted(texts)
    vectors_ND = embedder.embed(order)
    row = {text: i for i, text in enumerate(order)}
    matches: list[list[Match]] = []
    for sentences in lexical:
        matches.append([])
        for (start, end), claim, found in sentences:
            tried = [Match(start, end, c, coverage, float(vectors_ND[row[claim]] @ vectors_ND[row[_read(c)]])) for c, coverage in found]
            matches[-1].append(max(tried, key=_preferred, default=Match(start, end, None, 0.0, 0.0)))
    return matches


def _lexical_matches(answered: Answered, weights: TermWeights) -> list[tuple[tuple[int, int], str, list[tuple[_Candidate, float]]]]:
    """(range, text to compare, candidates with their coverage) of each sentence that says something."""
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
        whole = said if len(own.terms) >= _FEW_TERMS else f"{answered.question} {said}"
        wanted = (own.terms if whole is said else Claim(whole).terms) - FRAMING
        fitting = []
        if not misplaced_number(Claim(whole, known_names) if whole is not said else own, singles, weights):
            for candidate in candidates:
                around = heading(candidate.passage)
                coverage = weights.coverage(wanted, [*terms(candidate.text), *terms(around)])
                if coverage >= _MIN_COVERAGE and not contradiction(own, candidate.text, around, weights):
                    fitting.append((candidate, coverage))
        fitting.sort(key=lambda pair: (-pair[1], pair[0].num_sentences))
        found.append(((start, end), whole, fitting[:_CANDIDATES]))
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
    pairs = [_Candidate(passage, a[0], b[1], 2) for a, b in zip(ranges, ranges[1:], strict=False)]
    return [c for c in single + pairs if terms(c.text)]


def _read(candidate: _Candidate) -> str:
    return candidate.text


def _preferred(match: Match) -> tuple[float, int]:
    pair = match.candidate is not None and match.candidate.num_sentences > 1
    return match.score - (_PAIR_GAIN if pair else 0.0), -match.end


def _citation(match: Match, candidate: _Candidate, index: SearchIndex) -> Citation:
    passage = candidate.passage
    start, end = passage.span.start + candidate.start, passage.span.start + candidate.end
    place = index.place(passage.span.document_id, start) or passage.span.place
    span = Span(passage.span.document_id, start, end, place)
    return Citation(match.start, match.end, span, candidate.text, round(match.score, 4), passage.path, passage.title)
