"""Made-up documents, a completer that answers from a script: every drop has its counted reason, and held-out sets stay apart."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from mygpt.artifacts.corpus import Corpus, Document, Passage, Span, write_corpus
from mygpt.artifacts.dataset import Conversation, Dataset, Message
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config, resolve
from mygpt.core.digest import digest_text
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.data.evidence import plain
from mygpt.data.held_out import closeness, keep_apart
from mygpt.data.question_answer import QuestionAnswerConfig, choose_evidence, parse_questions, passages_to_read, question_answer
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.metrics.jaccard import token_jaccard

SETS = ("train", "knowledge", "generalisation")


# -- a world of facts --------------------------------------------------------------------------------------------------------


class World:
    """Sentences of invented names, the question of each, and what a reader would answer."""

    def __init__(self) -> None:
        self._draw = random.Random(0)
        self.question_of: dict[str, str] = {}  # by plain sentence
        self.sentence_of: dict[str, str] = {}  # by question

    def name(self) -> str:
        return "".join(self._draw.choice("bdfgklmnprstvz") + self._draw.choice("aeiou") for _ in range(4)).capitalize()

    def fact(self) -> str:
        a, b, c, d, n = self.name(), self.name(), self.name(), self.name(), self._draw.randint(1000, 9999)
        forms = [
            (f"The {a} {b} was founded in {n} by {c} {d}.", f"Who founded the {a} {b}?"),
            (f"Members of the {a} {b} pay {n} crowns for a {c} {d}.", f"What do {a} {b} members buy?"),
            (f"Every visitor of {a} {b} finds {n} steps behind the {c} {d}.", f"Where are the {a} {b} steps?"),
        ]
        sentence, question = self._draw.choice(forms)
        self.teach(sentence, question)
        return sentence

    def teach(self, sentence: str, question: str) -> None:
        self.question_of[sentence] = question
        self.sentence_of[question] = sentence

    def document(self, num_passages: int, facts_per_passage: int) -> list[str]:
        return [" ".join(self.fact() for _ in range(facts_per_passage)) for _ in range(num_passages)]

    def completer(
        self,
        *,
        ask: Callable[[str], str | None] = lambda sentence: None,
        read: Callable[[str], str | None] = lambda question: None,
        questions_on: Callable[[list[str]], list[str]] = lambda sentences: [],
        name: str = "scripted",
    ) -> "Counting":
        """`ask` may spoil a question, `read` a reading; `questions_on` says what is asked about a whole passage."""

        def reply(conversation: Conversation) -> str:
            content = conversation.messages[-1].content
            told = [s for s in self.question_of if s in plain(content)]
            asked = next((line for q in self.sentence_of if content.endswith(line := q)), None)
            if asked is not None:
                spoilt = read(asked)
                return self.sentence_of[asked] if spoilt is None else spoilt
            if "three questions" in content:
                return "\n".join(f"{n}. {q}" for n, q in enumerate(questions_on(told), start=1)) or "There is nothing to ask."
            (sentence,) = told
            spoilt = ask(sentence)
            return self.question_of[sentence] if spoilt is None else spoilt

        return Counting(reply, name=name)


class Counting(ScriptedCompleter):
    """Remembers what was asked."""

    def __init__(self, reply: Callable[[Conversation], str], *, name: str):
        super().__init__(reply, name=name)
        self.asked: list[str] = []

    def complete(self, conversations: Any, sampling: Any) -> Any:
        self.asked += [c.messages[-1].content for c in conversations]
        return super().complete(conversations, sampling)

    @property
    def facts_asked(self) -> int:
        return sum("three questions" not in a and "\n" not in a for a in self.asked)


class NotesConfig(Config):
    documents: dict[str, list[str]]  # passages by path
    languages: dict[str, str] = Field(default_factory=dict)


@recipe
def notes(config: NotesConfig, *, run: Run) -> Corpus:
    read = []
    for path, texts in config.documents.items():
        text = "\n\n".join(["# Notes", *texts])
        document_id = digest_text(path + text)[:16]
        language = config.languages.get(path, "en")
        document = Document(document_id, path, text, path, "text/markdown", digest_text(text), len(text), language)
        passages, at = [], 0
        for one in texts:
            at = text.index(one, at)
            span = Span(document_id, at, at + len(one), "Notes")
            passages.append(Passage(digest_text(f"{document_id}/{at}")[:16], span, one, path, path))
        read.append((document, passages))
    return publish(Corpus, run, lambda folder: write_corpus(folder, read, []))


def made(corpus: Corpus, completer: Counting, run: Run, **settings: Any) -> Dataset:
    return question_answer(QuestionAnswerConfig(**settings), corpus=corpus, completer=completer, run=run)


def accounted(dataset: Dataset) -> int:
    """Kept and dropped, which must be all candidates; the counts in the facts are those of the files."""
    kept = {name: len(dataset.split(name)) for name in SETS}
    facts = dataset.manifest.facts
    assert facts["rows"] == kept
    assert facts["dropped"] == dict(Counter(d.reason for d in dataset.dropped))
    assert facts["candidates"] == sum(kept.values()) + len(dataset.dropped)
    return int(facts["candidates"])


# -- the three sets ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def library() -> tuple[World, dict[str, list[str]]]:
    """Fourteen documents of 16 facts; three sentences of d00 stand in every other document too, with another last word."""
    world = World()
    documents = {f"d{n:02}.md": world.document(4, 4) for n in range(14)}
    for place in range(3):
        shared = documents["d00.md"][place].split(". ")[0] + "."
        for n in range(1, 14):
            sentence = shared.replace(shared.split()[-1], world.name() + ".")
            documents[f"d{n:02}.md"][place] += f" {sentence}"
            world.teach(sentence, world.question_of[shared][:-1] + f" in {world.name()}?")
    return world, documents


def noisy(world: World, name: str = "noisy") -> Counting:
    """Spoils a quarter of the questions and a quarter of the readings, always the same."""

    def one_in_four(text: str) -> bool:
        return int(digest_text(text)[:4], 16) % 4 == 0

    return world.completer(
        ask=lambda sentence: "No idea." if one_in_four(sentence) else None,
        read=lambda question: "Bananas are yellow." if one_in_four(question) else None,
        questions_on=lambda sentences: [world.question_of[s] for s in sentences[:2]],
        name=name,
    )


def test_held_out_sets_stay_apart(library: Any, run: Run) -> None:
    world, documents = library
    corpus = notes(NotesConfig(documents=documents), run=run)
    completer = noisy(world)
    dataset = made(corpus, completer, run, train_pairs=60, knowledge_pairs=30, generalisation_pairs=20, questions_first_share=0.5)
    train, knowledge, generalisation = (dataset.split(name) for name in SETS)
    assert len(train) >= 50 and len(knowledge) >= 20 and len(generalisation) >= 8

    held_out = set(dataset.manifest.facts["held_out_documents"])
    documents_in = {name: {s.document_id for row in dataset.split(name) for s in row.sources} for name in SETS}
    assert documents_in["generalisation"] <= held_out and held_out
    assert not held_out & (documents_in["train"] | documents_in["knowledge"])
    assert documents_in["knowledge"] <= set(corpus.documents) - held_out

    for row in (*knowledge, *generalisation):
        assert max(token_jaccard(row.question, t.question) for t in train) <= 0.6
        assert max(token_jaccard(row.answer, t.answer) for t in train) <= 0.6
    too_close = [d for d in dataset.dropped if d.reason == "too close to a training row"]  # of the sentences that stand everywhere
    assert too_close and all(max(closeness(d.row, t) for t in train) > 0.6 for d in too_close)
    assert {d.detail for d in too_close} <= {t.question for t in train}
    ids = [row.id for name in SETS for row in dataset.split(name)]
    assert len(set(ids)) == len(ids)

    passages = {p.id: p for p in corpus.passages}
    for row in (*train, *knowledge, *generalisation):
        (span,) = row.sources
        assert plain(corpus.documents[span.document_id].text[span.start : span.end]) == row.answer
        passage = passages[row.facts["passage"]]
        assert passage.span.start <= span.start < span.end <= passage.span.end and row.facts["path"] == passage.path
        assert world.sentence_of[row.question] == row.answer
    assert accounted(dataset) == completer.facts_asked + sum(d.row.facts["made"] == "question first" for d in dataset.dropped) + sum(
        row.facts["made"] == "question first" for name in SETS for row in dataset.split(name)
    )


def test_knowledge_is_of_passages_that_are_also_trained_on(library: Any, run: Run) -> None:
    """Of what is asked, before the checks: every passage of `knowledge` has a sentence in `train`."""
    world, documents = library
    dataset = made(notes(NotesConfig(documents=documents), run=run), world.completer(), run, questions_first_share=0)
    asked = {name: {r.facts["passage"] for r in dataset.split(name)} for name in SETS}
    assert len(asked["knowledge"]) >= 20
    assert asked["knowledge"] <= asked["train"]


def test_deterministic_and_a_seed_changes_it(library: Any, run: Run, tmp_path: Path) -> None:
    world, documents = library
    aims = {"train_pairs": 20, "knowledge_pairs": 10, "generalisation_pairs": 8, "questions_first_share": 0.5}
    first = made(notes(NotesConfig(documents=documents), run=run), noisy(world), run, **aims)
    elsewhere, seeded = Run(tmp_path / "elsewhere", name="test"), Run(tmp_path / "seeded", name="test", seed=1)
    again = made(notes(NotesConfig(documents=documents), run=elsewhere), noisy(world), elsewhere, **aims)
    other = made(notes(NotesConfig(documents=documents), run=seeded), noisy(world), seeded, **aims)
    assert again.digest == first.digest
    assert [r.id for r in other.split("train")] != [r.id for r in first.split("train")]


def test_what_is_kept_is_what_was_asked_for(library: Any, run: Run) -> None:
    world, documents = library
    corpus = notes(NotesConfig(documents=documents), run=run)
    completer = world.completer()
    dataset = made(corpus, completer, run, train_pairs=20, knowledge_pairs=10, generalisation_pairs=5, questions_first_share=0)
    assert dataset.manifest.facts["rows"] == {"train": 20, "knowledge": 10, "generalisation": 5}
    assert dataset.manifest.facts["dropped"]["more than asked for"] >= 20  # twice as many are asked for as are kept, and all are good
    assert accounted(dataset) == completer.facts_asked == 2 * (20 + 10 + 5)
    used = {r.facts["passage"] for name in SETS for r in dataset.split(name)}
    assert (dataset.manifest.facts["passages"], dataset.manifest.facts["passages_used"]) == (14 * 4, len(used))


def test_of_many_passages_some_are_looked_through(run: Run) -> None:
    """5 passages for each of the 2 x (4 + 2 + 1) sentences wanted: 70 of 300, from all over the corpus; the rest is named, not hidden."""
    documents = {f"{i:03}.md": [f"The {i}th bell of tower {i} weighs {i * 7 + k} kilograms." for k in range(3)] for i in range(100)}
    told: list[str] = []
    run.listeners.append(lambda event: told.append(event.get("text", "")))
    corpus = notes(NotesConfig(documents=documents), run=run)
    config = QuestionAnswerConfig(train_pairs=4, knowledge_pairs=2, generalisation_pairs=1)
    read = passages_to_read(corpus, 70, run)
    assert len({p.id for p in read}) == 70 and read == [p for p in corpus.passages if p in read]
    assert min(int(p.path[:3]) for p in read) < 10 and max(int(p.path[:3]) for p in read) > 90
    assert told[-1] == "Questions come from 70 of 300 passages, chosen at random; the others are searched, not learnt."
    chosen = choose_evidence(config, corpus, run)
    assert {e.passage for facts in chosen.values() for e in facts} <= set(read)
    held_out = {e.passage.path for e in chosen["generalisation"]}
    assert held_out and held_out.isdisjoint(e.passage.path for name in ("train", "knowledge") for e in chosen[name])


# -- every reason ------------------------------------------------------------------------------------------------------------

FIRST = "The Old Mill was founded in 1921 by Clara Voss."
SPOILT = {
    "no question in the reply": "I cannot say.",
    "question too short": "Mill founded?",
    "question leans on the text": "Who founded the mill of the passage?",
    "question shares nothing with its evidence": "Where do people go today?",
    "answer is in the question": "Was the Old Mill founded in 1921 by Clara Voss?",
}


@pytest.fixture
def small() -> tuple[World, dict[str, list[str]]]:
    """Four documents of 6 facts; the first fact is FIRST."""
    world = World()
    documents = {f"d{n}.md": world.document(2, 3) for n in range(4)}
    documents["d0.md"][0] = f"{FIRST} {documents['d0.md'][0]}"
    world.teach(FIRST, "Who founded the Old Mill?")
    return world, documents


def only_dropped(dataset: Dataset, reason: str) -> Conversation:
    assert dataset.manifest.facts["dropped"] == {reason: 1}
    (dropped,) = dataset.dropped
    assert accounted(dataset) == sum(dataset.manifest.facts["rows"].values()) + 1
    return dropped.row


def test_nothing_is_dropped_when_all_is_well(small: Any, run: Run) -> None:
    world, documents = small
    completer = world.completer()
    dataset = made(notes(NotesConfig(documents=documents), run=run), completer, run, questions_first_share=0)
    assert dataset.dropped == [] and accounted(dataset) == completer.facts_asked == 25


@pytest.mark.parametrize("reason", SPOILT)
def test_faults_of_a_question(reason: str, small: Any, run: Run) -> None:
    world, documents = small
    completer = world.completer(ask=lambda sentence: SPOILT[reason] if sentence == FIRST else None)
    row = only_dropped(made(notes(NotesConfig(documents=documents), run=run), completer, run, questions_first_share=0), reason)
    assert (row.question, row.answer) == (SPOILT[reason], FIRST)


def test_duplicate_question(small: Any, run: Run) -> None:
    world, documents = small
    second = "The Old Mill was rebuilt in 1950 by Jon Brand."
    documents["d0.md"][1] += f" {second}"
    world.teach(second, "Who cared for the Old Mill?")
    completer = world.completer(ask=lambda sentence: "Who cared for the Old Mill?" if sentence == FIRST else None)
    dataset = made(notes(NotesConfig(documents=documents), run=run), completer, run, questions_first_share=0)
    reasons = dataset.manifest.facts["dropped"]
    # Which of the two comes first is drawn; FIRST cannot be read again by the other's question.
    assert reasons.get("duplicate question") == 1 and set(reasons) <= {"duplicate question", "unanswerable on a second reading"}
    assert next(d for d in dataset.dropped if d.reason == "duplicate question").row.answer in (FIRST, second)
    accounted(dataset)


def test_unanswerable_on_a_second_reading(small: Any, run: Run) -> None:
    world, documents = small
    completer = world.completer(read=lambda question: "Nobody knows such things." if "Old Mill" in question else None)
    dataset = made(notes(NotesConfig(documents=documents), run=run), completer, run, questions_first_share=0)
    assert only_dropped(dataset, "unanswerable on a second reading").answer == FIRST
    assert dataset.dropped[0].detail == "Nobody knows such things."


def test_a_reading_that_leads_to_another_sentence(small: Any, run: Run) -> None:
    world, documents = small
    other = documents["d0.md"][0].removeprefix(f"{FIRST} ").split(". ")[0] + "."
    completer = world.completer(read=lambda question: other if "Old Mill" in question else None)
    dataset = made(notes(NotesConfig(documents=documents), run=run), completer, run, questions_first_share=0)
    assert only_dropped(dataset, "unanswerable on a second reading").answer == FIRST


def test_question_first(small: Any, run: Run) -> None:
    """Kept where its reading rests on a sentence; one on nothing of the passage is not grounded; a reply without questions is counted."""
    world, documents = small
    world.teach("Bananas are yellow.", "Which colour are ripe bananas?")

    def questions_on(sentences: list[str]) -> list[str]:
        if FIRST in sentences:
            return ["Which mill did Clara Voss begin?", "Which colour are ripe bananas?"]
        return []

    world.sentence_of["Which mill did Clara Voss begin?"] = FIRST
    corpus = notes(NotesConfig(documents=documents), run=run)
    dataset = made(corpus, world.completer(questions_on=questions_on), run, questions_first_share=1.0)
    assert dataset.manifest.facts["dropped"] == {"no question in the reply": 7, "not grounded in a sentence": 1}  # eight passages
    rows = [r for name in SETS for r in dataset.split(name) if r.facts["made"] == "question first"]
    assert [(r.question, r.answer) for r in rows] == [("Which mill did Clara Voss begin?", FIRST)]
    asked_first = [r for name in SETS for r in dataset.split(name) if r.facts["made"] == "answer first"]
    assert len(asked_first) == 25
    assert accounted(dataset) == 25 + 7 + 2
    assert {d.row.facts["path"] for d in dataset.dropped} <= set(documents)


def test_too_close_by_hand() -> None:
    """{a, b, c} and {a, b, c, d, e}: 3 of 5 = 0.6 is allowed; {a, b, c, d}: 3 of 4 is not."""

    def row(question: str, answer: str) -> Conversation:
        return Conversation((Message("user", question), Message("assistant", answer)))

    training = [row("u v w", "a b c")]
    allowed, same_answer, same_question = row("x y z", "a b c d e"), row("x y z", "a b c d"), row("u v w t", "k l m")
    apart, too_close = keep_apart([allowed, same_answer, same_question], training, max_overlap=0.6)
    assert apart == [allowed]
    assert [(d.row, d.detail) for d in too_close] == [(same_answer, "u v w"), (same_question, "u v w")]
    assert {d.reason for d in too_close} == {"too close to a training row"}
    assert closeness(same_question, training[0]) == 0.75
    assert keep_apart([allowed], [], max_overlap=0.6) == ([allowed], [])


# -- small and odd collections -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_documents", [1, 2])
def test_too_few_documents_to_hold_one_out(num_documents: int, run: Run) -> None:
    world = World()
    documents = {f"d{n}.md": world.document(2, 4) for n in range(num_documents)}
    dataset = made(notes(NotesConfig(documents=documents), run=run), world.completer(), run)
    rows = dataset.manifest.facts["rows"]
    assert rows["generalisation"] == 0 and dataset.manifest.facts["held_out_documents"] == []
    assert rows["train"] > rows["knowledge"] > 0


@pytest.mark.parametrize(("num_documents", "facts_per_passage"), [(3, 3), (3, 12), (8, 10)])
def test_few_large_documents_still_hold_one_out(num_documents: int, facts_per_passage: int, run: Run) -> None:
    """At most about a third of all facts is held out, and never nothing."""
    world = World()
    documents = {f"d{n}.md": world.document(2, facts_per_passage) for n in range(num_documents)}
    dataset = made(notes(NotesConfig(documents=documents), run=run), world.completer(), run, questions_first_share=0)
    rows = dataset.manifest.facts["rows"]
    assert 0 < rows["generalisation"] <= 2 * facts_per_passage
    assert len(dataset.manifest.facts["held_out_documents"]) == 1
    assert rows["train"] > rows["knowledge"] > 0


def test_one_large_document_is_not_held_out(run: Run) -> None:
    """Beside two without a fact, it is all there is to learn."""
    world = World()
    documents = {"large.md": world.document(3, 6), "a.md": ["# Title"], "b.md": ["Is this a question of any kind at all?"]}
    dataset = made(notes(NotesConfig(documents=documents), run=run), world.completer(), run, questions_first_share=0)
    assert dataset.manifest.facts["held_out_documents"] == []
    assert dataset.manifest.facts["rows"]["train"] > 0


NOTHING_STATED = {"a.md": ["# Only a title"], "b.md": ["| a | b |\n|---|---|\n| 1 | 2 |"], "c.md": ["Too short."]}


@pytest.mark.parametrize("documents", [{}, NOTHING_STATED])
def test_no_evidence_at_all(documents: dict[str, list[str]], run: Run) -> None:
    dataset = made(notes(NotesConfig(documents=documents), run=run), World().completer(), run)
    assert dataset.manifest.facts["rows"] == dict.fromkeys(SETS, 0)
    assert dataset.manifest.facts["candidates"] == 0 and dataset.dropped == []
    assert [dataset.split(name) for name in SETS] == [[], [], []]


def test_only_languages_that_are_asked_for(run: Run) -> None:
    world = World()
    documents = {f"{language or 'unsure'}.md": world.document(1, 4) for language in ("en", "de", "")}
    languages = {"en.md": "en", "de.md": "de", "unsure.md": ""}
    corpus = notes(NotesConfig(documents=documents, languages=languages), run=run)

    def paths(**settings: Any) -> set[str]:
        dataset = made(corpus, world.completer(), run, questions_first_share=1.0, **settings)
        return {r.facts["path"] for name in SETS for r in dataset.split(name)} | {d.row.facts["path"] for d in dataset.dropped}

    assert paths() == {"en.md", "de.md", "unsure.md"}
    assert paths(languages=("en",)) == {"en.md", "unsure.md"}
    assert paths(languages=("fr",)) == {"unsure.md"}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("train_pairs", 0), ("knowledge_pairs", -1), ("expected_yield", 0), ("expected_yield", 1.1), ("questions_first_share", 2)),
        *(("max_overlap", -0.1), ("max_question_tokens", 0), ("reading_overlap", 1.5)),
    ],
)
def test_settings_without_sense(setting: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"Setting `{setting}` cannot be"):
        resolve(QuestionAnswerConfig, {setting: value})


def test_no_held_out_set_asked_for(library: Any, run: Run) -> None:
    world, documents = library
    aims = {"train_pairs": 300, "knowledge_pairs": 0, "generalisation_pairs": 0, "questions_first_share": 0}
    dataset = made(notes(NotesConfig(documents=documents), run=run), world.completer(), run, **aims)
    assert dataset.manifest.facts["rows"] == {"train": 14 * 16 + 3 * 13, "knowledge": 0, "generalisation": 0}
    assert {row.facts["path"] for row in dataset.split("train")} == set(documents)


# -- reading replies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "questions"),
    [
        ("Who founded the museum?", ["Who founded the museum?"]),
        ("1. Who founded it?\n2) When was it?\n- Where does it stand?", ["Who founded it?", "When was it?", "Where does it stand?"]),
        ('Question: "What does it cost?"', ["What does it cost?"]),
        ("**What does it cost?** It costs 24 euros.", ["What does it cost?"]),
        ("Sure! Here are questions:\n\nWhat does it cost today?", ["What does it cost today?"]),
        ("It costs 24 euros.", []),
        ("Why?", []),
        ("", []),
    ],
)
def test_parse_questions(reply: str, questions: list[str]) -> None:
    assert parse_questions(reply) == questions
