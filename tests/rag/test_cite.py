"""Each sentence of an answer gets its source or the mark "unsupported"; places are in the stored document."""

from collections.abc import Callable

import pytest

from mygpt.infer.protocols import Citation
from mygpt.rag.cite import Answered, cite, cite_all, combine, match_all
from mygpt.rag.search import Search
from tests.rag.toys import BOATS, FARES, HashedWords

Marks = tuple[tuple[Citation, ...], tuple[tuple[int, int], ...]]


@pytest.fixture
def marks_of(ferries: Search) -> Callable[..., Marks]:
    """The answer (and its question) -> citations and unsupported ranges, from all four passages."""

    def marks(text: str, question: str = "") -> Marks:
        answered = Answered(question, text, ferries.index.passages(range(4)))
        return cite(answered, index=ferries.index, weights=ferries.weights, embedder=ferries.embedder)

    return marks


def test_the_score_by_hand() -> None:
    """0.5 * 0.8 + 0.5 * 0.6 - 4 * 0.05 = 0.5."""
    assert combine(0.8, 0.6, 0.05) == pytest.approx(0.5)


def test_a_citation_points_into_the_stored_document(ferries: Search, marks_of: Callable[..., Marks]) -> None:
    text = "Sure! A carnet is valid for 18 months. The Wren is made of larch planks on oak frames."
    (carnet, wren), unsupported = marks_of(text)
    assert text[carnet.start : carnet.end] == "A carnet is valid for 18 months."
    assert carnet.quote == "A carnet is valid for 18 months from the day it is bought."
    assert ferries.index.document(carnet.span.document_id).text[carnet.span.start : carnet.span.end] == carnet.quote
    assert (carnet.path, carnet.title, carnet.span.place) == ("fares.txt", "Fares", "paragraph 2")
    assert wren.quote == "The Wren is made of larch planks on oak frames." == text[wren.start : wren.end]
    assert (wren.path, wren.span.start) == ("boats.txt", BOATS.index("The Wren is made"))
    assert unsupported == ()  # "Sure!" says nothing


@pytest.mark.parametrize(
    "false",
    [
        "A carnet is valid for 24 months.",
        "A carnet is valid for 18 weeks.",
        "The Heron carries 40 passengers.",
        "An adult day return costs £4.20.",
        "Unused crossings are refunded.",
        "The Wren is made of steel plates on oak frames in Norway.",
        "Children under 5 never travel free.",
        "The Kestrel was built in 2009 at Tolvarth.",
        "Both boats have a tea room with a view.",
    ],
)
def test_a_planted_false_sentence_gets_no_citation(marks_of: Callable[..., Marks], false: str) -> None:
    text = f"{false} Children under 5 travel free."
    (citation,), unsupported = marks_of(text)
    assert citation.quote == "Children under 5 travel free."
    assert unsupported == ((0, len(false)),)


@pytest.mark.parametrize(
    "nothing",
    [
        "",
        "Sure!",
        "Hello, how can I help you?",
        "I don't know.",
        "The text does not mention that.",
        "Yes.",
        "😀 …",
        "According to the text:",
    ],
)
def test_what_claims_nothing_is_left_unmarked(marks_of: Callable[..., Marks], nothing: str) -> None:
    assert marks_of(nothing, "Do dogs pay?") == ((), ())


def test_a_fragment_is_read_with_its_question(marks_of: Callable[..., Marks]) -> None:
    question = "What does a carnet of ten crossings cost?"
    (citation,), unsupported = marks_of("£32.00.", question)
    assert citation.quote == "A carnet of ten crossings costs £32.00." and unsupported == ()
    assert marks_of("£4.20.", question) == ((), ((0, len("£4.20.")),))  # stands there, but for something else


def test_two_sentences_are_cited_together_only_where_one_is_not_enough(marks_of: Callable[..., Marks]) -> None:
    (one,), _ = marks_of("The Heron carries 72 passengers.")
    assert one.quote == "The Heron carries 72 passengers."
    (both,), _ = marks_of("The Heron carries 72 passengers and the Wren carries 40 passengers.")
    assert both.quote == "The Heron carries 72 passengers. The Wren carries 40 passengers."


def test_without_passages_everything_is_unsupported(ferries: Search) -> None:
    answered = Answered("", "A carnet is valid for 18 months.", [])
    assert cite(answered, index=ferries.index, weights=ferries.weights, embedder=ferries.embedder) == ((), ((0, 32),))


def test_the_threshold_decides(ferries: Search) -> None:
    answered = Answered("", "A carnet stays valid for about 18 months.", ferries.index.passages(range(4)))
    ((match,),) = match_all([answered], weights=ferries.weights, embedder=ferries.embedder)
    assert 0.3 < match.score < 1
    for support, is_cited in ((match.score - 0.01, True), (match.score + 0.01, False)):
        citations, unsupported = cite(answered, index=ferries.index, weights=ferries.weights, embedder=ferries.embedder, support=support)
        assert (bool(citations), bool(unsupported)) == (is_cited, not is_cited)


def test_many_answers_are_marked_as_one_by_one_with_two_calls_of_the_embedder(ferries: Search) -> None:
    class Counting(HashedWords):
        calls = 0

        def embed(self, texts: list[str]):  # type: ignore[no-untyped-def, override]
            self.calls += 1
            return super().embed(texts)

    passages = ferries.index.passages(range(4))
    answers = [Answered("", text, passages) for text in ("Neither boat sails in fog.", "A carnet costs £32.00.", FARES)]
    counting = Counting()
    together = cite_all(answers, index=ferries.index, weights=ferries.weights, embedder=counting)
    assert counting.calls <= 2
    assert together == [cite(a, index=ferries.index, weights=ferries.weights, embedder=ferries.embedder) for a in answers]
