"""Question-answer pairs from documents, each grounded in one sentence of its passage.

Two ways, both with any Completer:
    answer first    a sentence that states a fact is the answer; the model is asked for its question
    question first  the model asks questions about a passage; the sentence that its own reading rests on is the answer
Then a second reading: the question is put to the passage, and must lead back to the sentence.

Three sets:
    train           what the model learns
    knowledge       same passages, other sentences: did it learn the content?
    generalisation  documents never trained on: did it learn only the manner?
A held-out row that shares more than `max_overlap` token Jaccard with a training row, in question or in answer, is dropped.

Source  ours; round-trip consistency after Alberti et al. 2019, arXiv:1906.05416
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from mygpt.artifacts.corpus import Corpus, Passage
from mygpt.artifacts.dataset import Conversation, Dataset, Dropped, Message, conversation_facts, write_conversations
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.sentences import split_sentences
from mygpt.core.config import Config
from mygpt.core.digest import digest_value
from mygpt.core.run import Run
from mygpt.data.evidence import Evidence, best_evidence, by_document, content_words, evidence_in, plain, shared_words
from mygpt.data.held_out import keep_apart
from mygpt.infer.protocols import Completer, Sampling
from mygpt.metrics.token_f1 import token_f1

Share = Annotated[float, Field(ge=0, le=1)]


class QuestionAnswerConfig(Config):
    train_pairs: PositiveInt = 170  # aims; what the documents hold may be less
    knowledge_pairs: NonNegativeInt = 90
    generalisation_pairs: NonNegativeInt = 50
    expected_yield: Annotated[float, Field(gt=0, le=1)] = 0.5  # of candidates that survive the checks, from trials
    questions_first_share: Share = 0.12  # of the passages are also asked question first
    max_question_tokens: PositiveInt = 28
    max_reading_tokens: PositiveInt = 32
    reading_overlap: Share = 0.5  # of the second reading's content words, in the evidence
    languages: tuple[str, ...] = ()  # only documents in these (or of unsure language); () for all
    max_overlap: Share = 0.6  # token Jaccard between a held-out and a training row


TRAIN, KNOWLEDGE, GENERALISATION = "train", "knowledge", "generalisation"

# Written for this file. They show forms of questions, on matters that no user's documents are about.
_EXAMPLES = (
    ("The museum was founded in 1921 by Clara Voss.", "Who founded the museum?"),
    ("Dogs must be kept on a lead between March and July.", "When must dogs be kept on a lead?"),
    ("A family ticket costs 24 euros.", "How much does a family ticket cost?"),
    ("The filter removes empty lines before the report is written.", "What does the filter do before the report is written?"),
    ("Visitors may leave bags in the lockers for one day.", "How long may visitors leave bags in the lockers?"),
    ("By default, logs are kept on the server.", "Where are logs kept by default?"),
)
_EXAMPLE_TEXT = " ".join(fact for fact, _ in _EXAMPLES[:3])
_EXAMPLE_QUESTIONS = "\n".join(f"{n}. {question}" for n, (_, question) in enumerate(_EXAMPLES[:3], start=1))
_PASSAGES_PER_SENTENCE = 5  # that are looked through for each sentence to ask about; many hold none
_POINTS_AT_TEXT = re.compile(
    r"\b(passage|text|sentence|paragraph|document|fact|author|section|statement|following|above|below)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Candidate:
    question: str
    evidence: Evidence
    split: str
    made: str  # "answer first" | "question first"

    def row(self) -> Conversation:
        facts = {"passage": self.evidence.passage.id, "path": self.evidence.passage.path, "made": self.made}
        messages = (Message("user", self.question), Message("assistant", self.evidence.text))
        return Conversation(messages, digest_value([self.question, self.evidence.text])[:16], (self.evidence.span,), facts)


@recipe
def question_answer(config: QuestionAnswerConfig, *, corpus: Corpus, completer: Completer, run: Run) -> Dataset:
    facts_by_split = choose_evidence(config, corpus, run)
    dropped: list[Dropped] = []

    candidates = ask_for_facts(config, facts_by_split, completer, run, dropped)
    candidates += ask_about_passages(config, facts_by_split, completer, run, dropped)
    candidates = without_duplicates(candidates, dropped)
    candidates = read_again(config, candidates, completer, run, dropped)

    rows = {split: [c.row() for c in candidates if c.split == split] for split in (TRAIN, KNOWLEDGE, GENERALISATION)}
    aims = {TRAIN: config.train_pairs, KNOWLEDGE: config.knowledge_pairs, GENERALISATION: config.generalisation_pairs}
    for split, aim in aims.items():
        if split != TRAIN:
            rows[split], too_close = keep_apart(rows[split], rows[TRAIN], max_overlap=config.max_overlap)
            dropped += too_close
        dropped += [Dropped("more than asked for", row) for row in rows[split][aim:]]
        rows[split] = rows[split][:aim]

    held_out = {e.passage.span.document_id for e in facts_by_split[GENERALISATION]}
    used = {c.facts["passage"] for split in rows.values() for c in split}
    facts = {
        **conversation_facts(rows, dropped),
        "candidates": sum(map(len, rows.values())) + len(dropped),
        "held_out_documents": sorted(held_out),
        "passages": corpus.num_passages,
        "passages_used": len(used),
    }
    for reason, count in facts["dropped"].items():
        run.note(f"Dropped {count}: {reason}")
    return publish(Dataset, run, lambda folder: write_conversations(folder, rows, dropped), facts=facts)


# -- which sentences are asked about ----------------------------------------------------------------------------------------


def choose_evidence(config: QuestionAnswerConfig, corpus: Corpus, run: Run) -> dict[str, list[Evidence]]:
    """Sentences for each set. Whole documents are held out for `generalisation`; of other passages about a third goes to `knowledge`."""
    order = run.random("question_answer/evidence")
    wanted = {
        TRAIN: round(config.train_pairs / config.expected_yield),
        KNOWLEDGE: round(config.knowledge_pairs / config.expected_yield),
        GENERALISATION: round(config.generalisation_pairs / config.expected_yield),
    }
    facts_of = {
        document: [f for p in passages for f in evidence_in(p)]
        for document, passages in by_document(passages_to_read(corpus, _PASSAGES_PER_SENTENCE * sum(wanted.values()), run)).items()
        if not config.languages or corpus.languages[document] in ("", *config.languages)
    }
    total = sum(map(len, facts_of.values()))
    share = wanted[GENERALISATION] / sum(wanted.values())

    held_out: set[str] = set()
    if len(facts_of) >= 3:
        documents = sorted(facts_of)
        order.shuffle(documents)
        target = min(wanted[GENERALISATION], share * total)
        for document in documents:
            size = len(facts_of[document])
            if size and size <= 0.5 * target + 3 and sum(len(facts_of[d]) for d in held_out) < target:
                held_out.add(document)
        smallest = min((d for d in documents if facts_of[d]), key=lambda d: len(facts_of[d]), default=None)
        if wanted[GENERALISATION] and not held_out and smallest and 3 * len(facts_of[smallest]) <= total:
            held_out = {smallest}  # few documents, all of them large

    chosen: dict[str, list[Evidence]] = {TRAIN: [], KNOWLEDGE: [], GENERALISATION: []}
    chosen[GENERALISATION] = sample([f for d in sorted(held_out) for f in facts_of[d]], wanted[GENERALISATION], order)

    # Passages in random order, all usable sentences of each: questions on one passage share its prompt.
    by_passage: dict[str, list[Evidence]] = {}
    for document in sorted(facts_of.keys() - held_out):
        for fact in facts_of[document]:
            by_passage.setdefault(fact.passage.id, []).append(fact)
    passages = list(by_passage.values())
    order.shuffle(passages)
    ratio = wanted[KNOWLEDGE] / (wanted[KNOWLEDGE] + wanted[TRAIN])
    for facts in passages:
        for fact in order.sample(facts, len(facts)):
            asked = len(chosen[KNOWLEDGE]) + len(chosen[TRAIN])
            to_knowledge = len(facts) > 1 and len(chosen[KNOWLEDGE]) < ratio * asked
            split = KNOWLEDGE if to_knowledge else TRAIN
            if len(chosen[split]) < wanted[split]:
                chosen[split].append(fact)
    left = total - sum(map(len, chosen.values()))
    if left:
        run.note(f"Asking about {total - left} of {total} sentences that state a fact; {left} are left out to keep within the time.")
    return chosen


def passages_to_read(corpus: Corpus, most: int, run: Run) -> list[Passage]:
    """All passages, or `most` of them at random, in order: a sentence from anywhere is as likely."""
    if corpus.num_passages <= most:
        return corpus.passages
    run.note(f"Questions come from {most:,} of {corpus.num_passages:,} passages, chosen at random; the others are searched, not learnt.")
    return corpus.passages_at(sorted(run.random("question_answer/passages_to_read").sample(range(corpus.num_passages), most)))


def sample(facts: Sequence[Evidence], number: int, order: random.Random) -> list[Evidence]:
    picked = sorted(order.sample(range(len(facts)), min(number, len(facts))))
    return [facts[i] for i in picked]


# -- asking -------------------------------------------------------------------------------------------------------------------


def ask_for_facts(
    config: QuestionAnswerConfig, facts_by_split: dict[str, list[Evidence]], completer: Completer, run: Run, dropped: list[Dropped]
) -> list[Candidate]:
    """Answer first: one question for each sentence."""
    asked = [(split, fact) for split, facts in facts_by_split.items() for fact in facts]
    shown = [Message("system", "Write the question that each fact answers.")]
    for stated, question in _EXAMPLES:
        shown += [Message("user", f"Fact: {stated}"), Message("assistant", question)]
    conversations = [Conversation((*shown, Message("user", f"Fact: {fact.text}"))) for _, fact in asked]
    answers = completer.complete(conversations, Sampling(max_tokens=config.max_question_tokens))
    made = []
    for (split, fact), answer in zip(asked, answers, strict=True):
        questions = parse_questions(answer.text)
        candidate = Candidate(questions[0] if questions else answer.text, fact, split, "answer first")
        reason = fault(candidate) if questions else "no question in the reply"
        if reason:
            dropped.append(Dropped(reason, candidate.row()))
        else:
            made.append(candidate)
    return made


def ask_about_passages(
    config: QuestionAnswerConfig, facts_by_split: dict[str, list[Evidence]], completer: Completer, run: Run, dropped: list[Dropped]
) -> list[Candidate]:
    """Question first: three questions on a passage; the model's own reading says which sentence is the answer."""
    split_of = {(f.passage.id, f.text): split for split, facts in facts_by_split.items() for f in facts}
    facts_of: dict[str, list[Evidence]] = {}
    for facts in facts_by_split.values():
        for fact in facts:
            facts_of.setdefault(fact.passage.id, []).append(fact)
    chosen = run.random("question_answer/passages").sample(sorted(facts_of), round(config.questions_first_share * len(facts_of)))
    passages = [facts_of[p][0].passage for p in chosen]

    request = "Write three questions that this text answers."
    shown = (Message("user", f"Text: {_EXAMPLE_TEXT}\n\n{request}"), Message("assistant", _EXAMPLE_QUESTIONS))
    conversations = [Conversation((*shown, Message("user", f"Text: {p.text}\n\n{request}"))) for p in passages]
    replies = completer.complete(conversations, Sampling(max_tokens=3 * config.max_question_tokens))
    asked: list[tuple[Passage, str]] = []
    for passage, reply in zip(passages, replies, strict=True):
        questions = parse_questions(reply.text)[:3]
        asked += [(passage, question) for question in questions]
        if not questions:
            dropped.append(Dropped("no question in the reply", question_first_row(passage, reply.text, "")))
    readings = completer.complete([reading(p, q) for p, q in asked], Sampling(max_tokens=config.max_reading_tokens))

    made = []
    for (passage, question), answer in zip(asked, readings, strict=True):
        found = best_evidence(answer.text, facts_of[passage.id], config.reading_overlap)
        if found is None:
            dropped.append(Dropped("not grounded in a sentence", question_first_row(passage, question, answer.text)))
            continue
        candidate = Candidate(question, found, split_of[passage.id, found.text], "question first")
        if reason := fault(candidate):
            dropped.append(Dropped(reason, candidate.row()))
        else:
            made.append(candidate)
    return made


def question_first_row(passage: Passage, question: str, answer: str) -> Conversation:
    """Of a candidate that has no evidence."""
    messages = (Message("user", question), Message("assistant", answer))
    facts = {"passage": passage.id, "path": passage.path, "made": "question first"}
    return Conversation(messages, digest_value([question, answer])[:16], (passage.span,), facts)


def reading(passage: Passage, question: str) -> Conversation:
    """The passage comes first, so that all questions on it share its part of the computation."""
    return Conversation((Message("user", f"{passage.text}\n\nAnswer from the text above, in one sentence.\nQuestion: {question}"),))


def read_again(
    config: QuestionAnswerConfig, candidates: list[Candidate], completer: Completer, run: Run, dropped: list[Dropped]
) -> list[Candidate]:
    """Second reading: the question and the passage must lead back to the evidence."""
    again = [c for c in candidates if c.made == "answer first"]  # question-first answers are a reading already
    answers = completer.complete([reading(c.evidence.passage, c.question) for c in again], Sampling(max_tokens=config.max_reading_tokens))
    lost = set()
    for candidate, answer in zip(again, answers, strict=True):
        if not leads_back(answer.text, candidate.evidence, config.reading_overlap):
            lost.add(id(candidate))
            dropped.append(Dropped("unanswerable on a second reading", candidate.row(), detail=answer.text))
    return [c for c in candidates if id(c) not in lost]


def leads_back(answer: str, evidence: Evidence, overlap: float) -> bool:
    """The answer says the evidence, or holds it, or no other sentence of the passage is nearer to it."""
    if max(shared_words(answer, evidence.text), shared_words(evidence.text, answer)) >= overlap:
        return True
    sentences = [plain(evidence.passage.text[start:end]) for start, end in split_sentences(evidence.passage.text)]
    nearest = max((token_f1(answer, s) for s in sentences), default=0.0)
    return token_f1(answer, evidence.text) >= max(0.2, nearest)


# -- checking -----------------------------------------------------------------------------------------------------------------


def parse_questions(reply: str) -> list[str]:
    """Lines that end in a question mark, without numbering or labels."""
    lines = [re.sub(r"^\W*(?:\d+[.)]\s*|question:\s*)?", "", line.strip(), flags=re.IGNORECASE).strip(' "*') for line in reply.splitlines()]
    return [line[: line.index("?") + 1] for line in lines if "?" in line and len(line) > 8]


def fault(candidate: Candidate) -> str | None:
    """Why a question is no good, or None."""
    question, answer = content_words(candidate.question), content_words(candidate.evidence.text)
    if len(candidate.question.split()) < 3:
        return "question too short"
    if _POINTS_AT_TEXT.search(candidate.question) and not _POINTS_AT_TEXT.search(candidate.evidence.text):
        return "question leans on the text"
    if not question & answer:
        return "question shares nothing with its evidence"
    if len(answer - question) < 2:
        return "answer is in the question"
    return None


def without_duplicates(candidates: list[Candidate], dropped: list[Dropped]) -> list[Candidate]:
    """The first of equal questions stays (equal: the same content words)."""
    seen: set[frozenset[str]] = set()
    kept = []
    for candidate in candidates:
        key = frozenset(content_words(candidate.question))
        if key in seen:
            dropped.append(Dropped("duplicate question", candidate.row()))
        else:
            seen.add(key)
            kept.append(candidate)
    return kept
