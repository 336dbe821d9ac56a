"""RetrievalCompleter is a StreamingCompleter: it searches, asks, cites, or abstains."""

from collections.abc import Iterator, Sequence

import pytest

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.infer.protocols import Answer, Identity, Sampling
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.rag.answer import AnswerConfig, RetrievalCompleter, abstention, fit_context, grounded_conversation, is_follow_up, search_question
from mygpt.rag.relevance import relevance_all
from mygpt.rag.search import Search
from tests.rag.toys import FARES

CARNET = "What does a carnet of ten crossings cost?"
OFF_TOPIC = "Who painted the Sistine Chapel?"


def asked(*turns: str) -> Conversation:
    """User and assistant in turn; the last is the user's."""
    roles = ("user", "assistant")
    return Conversation(tuple(Message(roles[i % 2], text) for i, text in enumerate(turns)))  # type: ignore[arg-type]


class Recorder(ScriptedCompleter):
    """Answers with one sentence and keeps what it was asked."""

    def __init__(self, reply: str = "A carnet of ten crossings costs £32.00. It is made of gold."):
        super().__init__(lambda conversation: reply)
        self.batches: list[list[Conversation]] = []

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        self.batches.append(list(conversations))
        return super().complete(conversations, sampling)

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[str | Answer]:
        self.batches.append([conversation])
        try:
            yield from super().stream(conversation, sampling)
        finally:
            self.closed = True


def test_answers_with_citations_and_marks(ferries: Search) -> None:
    inner = Recorder()
    (answer,) = RetrievalCompleter(inner, ferries).complete([asked(CARNET)], Sampling())
    assert answer.finish_reason == "stop"
    assert [answer.text[c.start : c.end] for c in answer.citations] == ["A carnet of ten crossings costs £32.00."]
    assert [answer.text[start:end] for start, end in answer.unsupported] == ["It is made of gold."]
    assert answer.citations[0].quote in answer.passages[0]  # what was read, best first


def test_the_prompt_is_passages_then_instruction_then_question(ferries: Search) -> None:
    inner = Recorder()
    RetrievalCompleter(inner, ferries).complete([asked(CARNET)], Sampling())
    ((conversation,),) = inner.batches
    (message,) = conversation.messages
    best_last = [h.passage.text for h in ferries.search(CARNET, 3)][::-1]
    assert [message.content.index(text) for text in best_last] == sorted(message.content.index(text) for text in best_last)
    assert "Fares > paragraph 2\nA carnet of ten crossings costs £32.00." in message.content and "carnet" in best_last[-1]
    assert message.content.endswith(f"\n\nAnswer the question briefly, using only the text above.\n\nQuestion: {CARNET}")
    assert conversation.sources[0] == ferries.search(CARNET, 1)[0].passage.span
    assert grounded_conversation(CARNET, ferries.search(CARNET, 3)) == conversation


def test_two_questions_on_the_same_passages_share_the_beginning_of_their_prompts(ferries: Search) -> None:
    hits = ferries.search(CARNET, 3)
    one, other = (grounded_conversation(q, hits).question for q in ("How long is it valid?", "What does it cost?"))
    shared = one.partition("Question:")[0]
    assert other.startswith(shared) and FARES.split("\n\n")[1] in shared


def test_abstains_without_asking_the_model(ferries: Search) -> None:
    inner = Recorder()
    (answer,) = RetrievalCompleter(inner, ferries).complete([asked(OFF_TOPIC)], Sampling())
    assert (answer.finish_reason, answer.citations, answer.unsupported, inner.batches) == ("abstained", (), (), [])
    assert answer.text == abstention(ferries.index) and "“Boats”, “Fares”" in answer.text


def test_an_abstention_names_three_documents_and_counts_the_others(search_in) -> None:  # type: ignore[no-untyped-def]
    text = abstention(search_in({f"{name}.txt": f"About {name}." for name in ("ash", "birch", "cedar", "elm", "fir")}).index)
    assert "(“Ash”, “Birch”, “Cedar” and 2 more)" in text


def test_nothing_indexed_is_an_abstention(search_in) -> None:  # type: ignore[no-untyped-def]
    (answer,) = RetrievalCompleter(Recorder(), search_in({}), AnswerConfig(min_relevance=0)).complete([asked(CARNET)], Sampling())
    assert (answer.finish_reason, answer.text) == ("abstained", "I have no documents to answer from, so I would rather not guess.")


def test_a_batch_asks_the_model_once_and_keeps_the_order(ferries: Search) -> None:
    inner = Recorder()
    answers = RetrievalCompleter(inner, ferries).complete(
        [asked(OFF_TOPIC), asked(CARNET), asked(""), asked("Who built the Heron?")], Sampling()
    )
    assert [a.finish_reason for a in answers] == ["abstained", "stop", "abstained", "stop"]
    assert [len(batch) for batch in inner.batches] == [2]
    alone = RetrievalCompleter(Recorder(), ferries).complete([asked(CARNET)], Sampling())
    assert answers[1] == alone[0]
    assert RetrievalCompleter(inner, ferries).complete([], Sampling()) == []


def test_a_stream_ends_with_the_answer_that_complete_gives(ferries: Search) -> None:
    completer = RetrievalCompleter(Recorder(), ferries)
    *pieces, last = completer.stream(asked(CARNET), Sampling())
    assert isinstance(last, Answer) and "".join(map(str, pieces)) == last.text
    assert last == completer.complete([asked(CARNET)], Sampling())[0]
    text, answer = completer.stream(asked(OFF_TOPIC), Sampling())
    assert isinstance(answer, Answer) and text == answer.text and answer.finish_reason == "abstained"


def test_closing_the_stream_stops_the_model(ferries: Search) -> None:
    inner = Recorder()
    stream = RetrievalCompleter(inner, ferries).stream(asked(CARNET), Sampling())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert inner.closed


@pytest.mark.parametrize(
    ("question", "is_one"),
    [
        ("What does it cost?", True),
        ("And on Sundays?", True),
        ("Why?", True),
        ("How about children?", True),
        ("What does a carnet of ten crossings cost?", False),
        ("Who built the Heron at Tolvarth?", False),
        ("Is it true that a carnet of ten crossings can be used by several friends of mine?", False),  # long: stands for itself
    ],
)
def test_follow_ups(question: str, is_one: bool) -> None:
    assert is_follow_up(question) is is_one


def test_a_follow_up_is_searched_with_the_question_before(ferries: Search) -> None:
    conversation = asked("What is a carnet?", "A carnet is a book of ten crossings. " + "word " * 100, "How long is it valid?")
    assert search_question(conversation) == "What is a carnet? How long is it valid?"
    assert search_question(asked("What is a carnet?", "…", "Is it valid?", "…", "Why?")) == "What is a carnet? Is it valid? Why?"
    inner = Recorder("A carnet is valid for 18 months.")
    (answer,) = RetrievalCompleter(inner, ferries).complete([conversation], Sampling())
    ((prompt,),) = inner.batches
    assert [m.role for m in prompt.messages] == ["user", "assistant", "user"] and len(prompt.messages[1].content.split()) == 60
    assert prompt.question.endswith("Question: How long is it valid?") and "18 months" in prompt.question
    assert [c.quote for c in answer.citations] == ["A carnet is valid for 18 months from the day it is bought."]


def test_a_question_that_stands_alone_brings_no_history(ferries: Search) -> None:
    inner = Recorder()
    RetrievalCompleter(inner, ferries).complete([asked("Who built the Heron?", "Tolvarth did.", CARNET)], Sampling())
    assert len(inner.batches[0][0].messages) == 1


def test_the_context_keeps_to_its_words(ferries: Search) -> None:
    hits = ferries.search(CARNET, 4)
    fitted = fit_context(hits, CARNET, ferries.weights, 11)
    assert [hit.passage.text for hit in fitted] == ["A carnet of ten crossings costs £32.00."]  # the best run of 11 words
    passage = fitted[0].passage
    assert FARES[passage.span.start : passage.span.end] == passage.text
    assert sum(len(h.passage.text.split()) for h in fit_context(hits, CARNET, ferries.weights, 40)) <= 40
    assert fit_context(hits, CARNET, ferries.weights, 10_000) == hits
    assert fit_context(hits, CARNET, ferries.weights, 2) == []


def test_relevance_by_hand(ferries: Search) -> None:
    """Every word is known and one sentence holds them all: 0.6 * (cosine + 1) / 2 + 0.4 * 1."""
    question = "carnet crossings costs"
    (judged,) = relevance_all([question], [ferries.search(question, 3)], weights=ferries.weights, embedder=ferries.embedder)
    read, sentence = "Fares > paragraph 2\nA carnet of ten crossings costs £32.00.", ferries.embedder.embed([question])[0]
    cosine = float(ferries.embedder.embed([read])[0] @ sentence)
    assert (judged.sentence, judged.known) == (pytest.approx((cosine + 1) / 2), 1.0)
    assert judged.score == pytest.approx(0.6 * (cosine + 1) / 2 + 0.4)


def test_who_asks_for_a_price_needs_money(ferries: Search) -> None:
    """No sentence on the Heron holds a sum, so only that its words are known speaks for the question."""
    hits = [hit for hit in ferries.search("Heron", 4) if hit.passage.title == "Boats"]
    for question, has_sentence in (("Who built the Heron?", True), ("How much did the Heron cost?", False)):
        (judged,) = relevance_all([question], [hits], weights=ferries.weights, embedder=ferries.embedder)
        assert (judged.sentence > 0) is has_sentence and judged.known > 0.4


def test_identity_names_model_index_and_settings(ferries: Search) -> None:
    completer = RetrievalCompleter(Recorder(), ferries, AnswerConfig(top=2))
    identity: Identity = completer.identity
    assert identity["completer"] == {"engine": "scripted", "name": "scripted"} and identity["index"] == ferries.index.digest
    assert identity["settings"]["top"] == 2 and identity != RetrievalCompleter(Recorder(), ferries).identity


def test_settings_reach_the_marks(ferries: Search) -> None:
    strict = RetrievalCompleter(Recorder(), ferries, AnswerConfig(min_support=1.1)).complete([asked(CARNET)], Sampling())[0]
    said = Recorder().complete([asked("")], Sampling())[0].text
    assert all(c.start >= len(said) for c in strict.citations) and len(strict.unsupported) == 2
    never = RetrievalCompleter(Recorder(), ferries, AnswerConfig(min_relevance=1.1)).complete([asked(CARNET)], Sampling())[0]
    assert never.finish_reason == "abstained"
    assert strict.text.startswith(said)
