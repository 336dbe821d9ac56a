"""The promises, on the sample handbook. The completer is scripted; the embedder and the index are real.

No constant was fitted on it, but rules (expected answer types, comparisons, midnight) were written after seeing what it got wrong: it is
not untouched. `benchmarks/rag.py` measures a second set, written when all rules stood.

60 questions with their evidence, 30 off-topic questions, 15 planted false sentences.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.infer.protocols import Answer, Sampling
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.rag.answer import AnswerConfig, RetrievalCompleter
from mygpt.rag.search import Search

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "handbook"
Row = dict[str, Any]


def rows(name: str) -> list[Row]:
    return [json.loads(line) for line in (FIXTURES / name).read_text(encoding="utf-8").splitlines()]


QUESTIONS = rows("questions.jsonl")


def given(search: Search, replies: Callable[[str], str], questions: list[str], *, min_relevance: float | None = None) -> list[Answer]:
    """Answers with the marks on the reply itself: what is added after it is not the model's."""
    settings = AnswerConfig() if min_relevance is None else AnswerConfig(min_relevance=min_relevance)
    scripted = ScriptedCompleter(lambda conversation: replies(conversation.question.rpartition("Question: ")[2]))
    answers = RetrievalCompleter(scripted, search, settings).complete([Conversation((Message("user", q),)) for q in questions], Sampling())
    lengths = [len(replies(q)) for q in questions]
    return [replace(a, citations=tuple(c for c in a.citations if c.end <= n)) for a, n in zip(answers, lengths, strict=True)]


def precision(answers: list[Answer]) -> tuple[float, int]:
    """Share of the citations whose span and the evidence overlap (one holds the other, white space aside), and their number."""
    right = []
    for answer, row in zip(answers, QUESTIONS, strict=True):
        evidence = " ".join(row["evidence"].split())
        quotes = [" ".join(citation.quote.replace("|", " ").split()) for citation in answer.citations]
        right += [evidence in quote or quote in evidence for quote in quotes]
    return sum(right) / max(len(right), 1), len(right)


@pytest.mark.parametrize(("column", "least"), [("answer", 40), ("evidence", 45)])
def test_citation_precision_on_sixty_questions(handbook: Search, column: str, least: int) -> None:
    """`answer`: the reference answer, in other words than the document; `evidence`: word for word. At least 0.8 is promised."""
    said = {row["question"]: f"{row[column][0].upper()}{row[column][1:]}." for row in QUESTIONS}
    share, citations = precision(given(handbook, said.__getitem__, list(said), min_relevance=0))
    assert len(said) == 60 and citations >= least
    assert share >= 0.8


def test_a_citation_is_the_document_s_own_text(handbook: Search) -> None:
    said = {row["question"]: row["evidence"] for row in QUESTIONS[:20]}
    citations = [c for answer in given(handbook, said.__getitem__, list(said), min_relevance=0) for c in answer.citations]
    assert len(citations) >= 15
    for citation in citations:
        document = handbook.index.document(citation.span.document_id)
        assert document.text[citation.span.start : citation.span.end] == citation.quote and document.path == citation.path


def test_answers_to_other_questions_get_almost_no_citation(handbook: Search) -> None:
    """Each question is given the next one's answer: true of the handbook, and no answer."""
    said = {row["question"]: f"{other['answer']}." for row, other in zip(QUESTIONS, QUESTIONS[1:] + QUESTIONS[:1], strict=True)}
    answers = given(handbook, said.__getitem__, list(said), min_relevance=0)
    assert sum(bool(answer.citations) for answer in answers) <= 6


def test_planted_false_sentences_get_no_citation(handbook: Search) -> None:
    """Put into an answer between two true sentences, to a question that finds the passage they are false about."""
    planted = rows("planted.jsonl")
    for row in planted:
        (answer,) = given(handbook, lambda _, said=row["sentence"]: said, [row["sentence"]], min_relevance=0)  # type: ignore[misc]
        assert answer.citations == (), (row["sentence"], answer.citations)
        assert [answer.text[start:end] for start, end in answer.unsupported] == [row["sentence"]]
    assert len(planted) == 15


def test_a_planted_sentence_among_true_ones(handbook: Search) -> None:
    true = "A carnet of ten single crossings costs £32.00."
    planted = "A carnet of ten single crossings may be paid in seashells."
    (answer,) = given(handbook, lambda _: f"{true} {planted} {true}", ["What does a carnet cost?"])
    assert [answer.text[c.start : c.end] for c in answer.citations] == [true, true]
    assert [answer.text[start:end] for start, end in answer.unsupported] == [planted]


def test_abstains_when_off_topic_and_seldom_else(handbook: Search) -> None:
    """At least 90 % of 30 off-topic questions, at most 10 % of 60 answerable ones."""
    off_topic = [row["question"] for row in rows("off_topic.jsonl")]
    refused = [answer.finish_reason == "abstained" for answer in given(handbook, lambda _: "Yes.", off_topic)]
    assert len(refused) == 30 and sum(refused) >= 27
    lost = [answer.finish_reason == "abstained" for answer in given(handbook, lambda _: "Yes.", [row["question"] for row in QUESTIONS])]
    assert len(lost) == 60 and sum(lost) <= 6


def test_the_answer_s_passage_is_found(handbook: Search) -> None:
    """Among the three passages that are read, for at least 50 of the 60."""
    found = handbook.search_all([row["question"] for row in QUESTIONS], 3)
    texts = [" ".join(" ".join(hit.passage.text for hit in hits).replace("|", " ").split()) for hits in found]
    assert sum(" ".join(row["evidence"].split()) in text for row, text in zip(QUESTIONS, texts, strict=True)) >= 50


def test_retrieval_leaves_the_first_second_to_the_model(handbook: Search) -> None:
    """From question to prompt, once warm: best of five under 0.5 s of processor time, whatever else the machine does."""
    completer = RetrievalCompleter(ScriptedCompleter(lambda _: "Yes."), handbook)
    seconds = []
    for row in QUESTIONS[:6]:
        started = time.process_time()
        next(completer.stream(Conversation((Message("user", row["question"] + " Please say."),)), Sampling()))
        seconds.append(time.process_time() - started)
    assert min(seconds[1:]) < 0.5
