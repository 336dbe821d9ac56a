"""Answer from the documents: find passages, put them before the question, and afterwards show where each sentence stands.

    RetrievalCompleter(completer, search, settings) is itself a StreamingCompleter.

A question for which nothing relevant is found is not put to the model: the answer then has the finish reason "abstained". A
follow-up ("and on Sundays?") is searched together with the question before it.

Source    retrieval before generation: Lewis et al. 2020, arXiv:2005.11401
We differ the passages come first in the prompt, then the instruction, then the question, so that questions on the same passages
          share their key-value cache, and few: a small model reads about 1,000 tokens a second, and the first word must come soon
"""

import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import cast

from mygpt.artifacts.corpus import Passage, Span
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.search_index import SearchIndex
from mygpt.artifacts.sentences import split_sentences
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.infer.protocols import Answer, Citation, Identity, Sampling, StreamingCompleter
from mygpt.rag.cite import SUPPORT, Answered, cite_all
from mygpt.rag.index import heading
from mygpt.rag.relevance import MIN_RELEVANCE, Reading, relevance_all
from mygpt.rag.search import Hit, Search
from mygpt.rag.words import TermWeights, terms

_INSTRUCTION = "Answer the question briefly, using only the text above."
QUOTED = "\n\nThe documents say: "
_CANDIDATES = 10  # passages searched for; the best few are read
_HISTORY_WORDS = 60  # of the turns before a follow-up
_FOLLOW_UP = re.compile(
    r"\b(?:it|its|they|them|their|this|that|these|those|he|she|him|his|her|there|one|ones|same|else|other)\b"
    r"|^\W*(?:and|but|or|so|what about|how about|why)\b",
    re.IGNORECASE,
)
_FOLLOW_UP_WORDS = 12  # a longer question stands for itself, pronoun or not


class AnswerConfig(Config):
    top: int = 3  # passages in the prompt at most
    context_words: int = 240  # of all passages together
    min_relevance: float = MIN_RELEVANCE  # 0: always answer
    min_support: float = SUPPORT  # of a citation
    quote: bool = True  # where nothing of an answer is supported, add the most relevant sentence itself


@dataclass(frozen=True)
class _Prepared:
    question: str  # as searched: with the turn before, for a follow-up
    hits: tuple[Hit, ...]  # cut to what is read; empty: nothing relevant
    conversation: Conversation
    best: Reading | None = None  # the sentence that fits the question best


class RetrievalCompleter:
    def __init__(self, completer: StreamingCompleter, search: Search, settings: AnswerConfig | None = None):
        self.completer = completer
        self._search = search
        self._settings = settings or AnswerConfig()

    @property
    def identity(self) -> Identity:
        return {
            "engine": "retrieval",
            "completer": self.completer.identity,
            "index": self._search.index.digest,
            "embedder": self._search.embedder.identity,
            "settings": self._settings.model_dump(mode="json"),
        }

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        prepared = self._prepare(conversations)
        asked = [p for p in prepared if p.hits]
        given = iter(self.completer.complete([p.conversation for p in asked], sampling)) if asked else iter(())
        answers = [next(given) if p.hits else self._abstained() for p in prepared]
        cited = iter(self._cite([(p, a) for p, a in zip(prepared, answers, strict=True) if p.hits]))
        return [next(cited) if p.hits else a for p, a in zip(prepared, answers, strict=True)]

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[str | Answer]:
        prepared = self._prepare([conversation])[0]
        if not prepared.hits:
            answer = self._abstained()
            yield answer.text
            yield answer
            return
        with closing(cast("Generator[str | Answer]", self.completer.stream(prepared.conversation, sampling))) as pieces:
            for piece in pieces:
                if not isinstance(piece, Answer):
                    yield piece
                    continue
                cited = self._cite([(prepared, piece)])[0]
                if len(cited.text) > len(piece.text):
                    yield cited.text[len(piece.text) :]
                yield cited

    def _prepare(self, conversations: Sequence[Conversation]) -> list[_Prepared]:
        if any(c.raw_text is not None for c in conversations):
            fix = "Give the text to the model itself, without its documents."
            raise UsageError("Raw text is to be continued, and answers from documents are for questions.", fix=fix)
        questions = [search_question(c) for c in conversations]
        found = self._search.search_all(questions, _CANDIDATES)
        judged = relevance_all(questions, found, weights=self._search.weights, embedder=self._search.embedder)
        prepared = []
        for conversation, question, hits, relevance in zip(conversations, questions, found, judged, strict=True):
            read = fit_context(hits[: self._settings.top], question, self._search.weights, self._settings.context_words)
            if not read or relevance.score < self._settings.min_relevance:
                prepared.append(_Prepared(question, (), conversation))
                continue
            history = _before(conversation) if question != conversation.question else ()
            asked = grounded_conversation(conversation.question, read, history)
            prepared.append(_Prepared(question, tuple(read), asked, relevance.best))
        return prepared

    def _cite(self, answers: Sequence[tuple[_Prepared, Answer]]) -> list[Answer]:
        answered = [Answered(p.question, a.text, [hit.passage for hit in p.hits]) for p, a in answers]
        search = self._search
        marks = cite_all(answered, index=search.index, weights=search.weights, embedder=search.embedder, support=self._settings.min_support)
        marked = [
            replace(answer, citations=citations, unsupported=bad, passages=tuple(p.text for p in read.passages))
            for (_, answer), read, (citations, bad) in zip(answers, answered, marks, strict=True)
        ]
        return [self._with_quote(p, a) for (p, _), a in zip(answers, marked, strict=True)]

    def _with_quote(self, prepared: _Prepared, answer: Answer) -> Answer:
        """A small model may miss what stands before it: then the reader gets the sentence itself, with its place."""
        best = prepared.best
        if not self._settings.quote or best is None or answer.citations or not answer.unsupported or answer.finish_reason == "cancelled":
            return answer
        passage, words = best.passage, " ".join(best.text.split())
        said = f"{answer.text}{QUOTED}“"
        span = passage.span
        place = self._search.index.place(span.document_id, span.start + best.start) or span.place
        source = Span(span.document_id, span.start + best.start, span.start + best.end, place)
        citation = Citation(len(said), len(said) + len(words), source, best.text, 1.0, passage.path, passage.title)
        return replace(answer, text=f"{said}{words}”", citations=(citation,))

    def _abstained(self) -> Answer:
        return Answer(abstention(self._search.index), finish_reason="abstained")


def grounded_conversation(question: str, hits: Sequence[Hit], history: Sequence[Message] = ()) -> Conversation:
    """The one prompt that answers from passages: the passages, the instruction, the question; `history` are turns before.

    The best passage comes last: a small model answers best from what it has just read.
    """
    passages = "\n\n".join(f"{heading(hit.passage)}\n{hit.passage.text}".strip() for hit in reversed(hits))
    asked = Message("user", f"{passages}\n\n{_INSTRUCTION}\n\nQuestion: {question}")
    return Conversation((*history, asked), sources=tuple(hit.passage.span for hit in hits))


def abstention(index: SearchIndex) -> str:
    """What is said instead of an answer: polite, fixed, and naming where it looked."""
    titles = list(dict.fromkeys(title or path for path, title in index.titles))
    if not titles:
        return "I have no documents to answer from, so I would rather not guess."
    shown = ", ".join(f"“{title}”" for title in titles[:3])
    more = f" and {len(titles) - 3} more" if len(titles) > 3 else ""
    return (
        f"I found nothing about this in the documents I answer from ({shown}{more}), so I would rather not guess. "
        "Perhaps ask in other words, or about something that they cover."
    )


def search_question(conversation: Conversation) -> str:
    """The last question; where it cannot stand alone, with the questions before it up to one that can."""
    questions = [m.content for m in conversation.messages if m.role == "user"]
    needed: list[str] = []
    for question in reversed(questions[-3:]):
        needed.insert(0, question)
        if not is_follow_up(question):
            break
    return " ".join(needed)


def is_follow_up(question: str) -> bool:
    """Short and pronominal ("What does it cost?"), or too short to be searched ("And on Sundays?", "Why?")."""
    if len(question.split()) > _FOLLOW_UP_WORDS:
        return False
    return bool(_FOLLOW_UP.search(question)) or len(set(terms(question))) < 2


def fit_context(hits: Sequence[Hit], question: str, weights: TermWeights, context_words: int) -> list[Hit]:
    """As much of the hits, best first, as `context_words` holds; a passage that is too long is cut to its best run of sentences."""
    fitted: list[Hit] = []
    left = context_words
    for hit in hits:
        passage = _cut(hit.passage, set(terms(question)), weights, left) if left > 0 else None
        if passage is None:
            break
        fitted.append(replace(hit, passage=passage))
        left -= len(passage.text.split())
    return fitted


def _cut(passage: Passage, wanted: set[str], weights: TermWeights, words: int) -> Passage | None:
    """The passage, or its run of at most `words` words that holds most of what is wanted; None when not even a sentence fits."""
    if len(passage.text.split()) <= words:
        return passage
    sentences = split_sentences(passage.text)
    runs = []
    for first, (start, _) in enumerate(sentences):
        fitting = [end for _, end in sentences[first:] if len(passage.text[start:end].split()) <= words]
        if fitting:
            runs.append((start, fitting[-1]))
    if not runs:
        return None
    start, end = max(runs, key=lambda run: (weights.coverage(wanted, terms(passage.text[run[0] : run[1]])), -run[0]))
    span = passage.span
    return replace(passage, text=passage.text[start:end], span=Span(span.document_id, span.start + start, span.start + end, span.place))


def _before(conversation: Conversation) -> tuple[Message, ...]:
    """The last question and answer before this one, cut short, so that "it" can be understood."""
    earlier = [m for m in conversation.prompt[:-1] if m.role in ("user", "assistant")][-2:]
    if not earlier or earlier[0].role != "user":
        return ()
    return tuple(Message(m.role, " ".join(m.content.split()[:_HISTORY_WORDS])) for m in earlier)
