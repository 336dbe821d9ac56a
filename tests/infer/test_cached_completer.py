"""The cache of answers: what it saves, what it keeps, and that it never stands in the way."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mygpt.artifacts.corpus import Span
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.errors import MygptError
from mygpt.infer import cached_completer
from mygpt.infer.cached_completer import CachedCompleter
from mygpt.infer.protocols import Answer, Citation, Identity, Sampling
from mygpt.infer.repeats import occurrences


class Counting:
    """Answers `<text> #<draw>` and remembers what it was asked; breaks at the text "break" while `broken`."""

    def __init__(self, name: str = "counting"):
        self.name = name
        self.calls: list[list[str]] = []
        self.broken = True

    @property
    def identity(self) -> Identity:
        return {"engine": "counting", "name": self.name}

    @property
    def asked(self) -> list[str]:
        return [text for call in self.calls for text in call]

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        texts = [c.question for c in conversations]
        self.calls.append(texts)
        if self.broken and "break" in texts:
            raise MygptError("It broke.", fix="Mend it.")
        numbers = occurrences(texts) if sampling.temperature else [0] * len(texts)
        return [Answer(f"{text} #{n}", "length", (1, 2), (-0.5, -0.25), 7) for text, n in zip(texts, numbers, strict=True)]


def ask(*texts: str) -> list[Conversation]:
    return [Conversation((Message("user", text),)) for text in texts]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "answers.sqlite"


def test_a_second_call_computes_nothing(path: Path) -> None:
    inner = Counting()
    first = CachedCompleter(inner, path).complete(ask("a", "b", "a"), Sampling())
    second = CachedCompleter(inner, path).complete(ask("b", "a", "c"), Sampling())
    assert [a.text for a in first] == ["a #0", "b #0", "a #0"]
    assert second == [first[1], first[0], Answer("c #0", "length", (1, 2), (-0.5, -0.25), 7)]
    assert inner.calls == [["a", "b"], ["c"]]
    assert CachedCompleter(inner, path).identity == inner.identity


def test_what_was_done_before_a_fault_is_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_completer, "_KEPT_AT_ONCE", 2)
    inner = Counting()
    cached = CachedCompleter(inner, path)
    with pytest.raises(MygptError, match="It broke"):
        cached.complete(ask("a", "b", "c", "break", "d"), Sampling())
    inner.broken, inner.calls = False, []
    assert [a.text for a in cached.complete(ask("a", "b", "c", "break", "d"), Sampling())] == [
        "a #0", "b #0", "c #0", "break #0", "d #0",
    ]  # fmt: skip
    assert inner.calls == [["c", "break"], ["d"]]


class AsFinished(Counting):
    """The last first, and broken after so many."""

    def as_finished(self, conversations: Sequence[Conversation], sampling: Sampling) -> Iterator[tuple[int, Answer]]:
        answers = self.complete(conversations, sampling)
        for number, place in enumerate(reversed(range(len(answers)))):
            if self.broken and number == 2:
                raise MygptError("It broke.", fix="Mend it.")
            yield place, answers[place]


def test_what_finished_before_a_fault_is_kept_one_by_one(path: Path) -> None:
    inner = AsFinished()
    cached = CachedCompleter(inner, path)
    with pytest.raises(MygptError, match="It broke"):
        cached.complete(ask("a", "b", "c", "d"), Sampling())
    inner.broken, inner.calls = False, []
    assert [a.text for a in cached.complete(ask("a", "b", "c", "d"), Sampling())] == ["a #0", "b #0", "c #0", "d #0"]
    assert inner.calls == [["a", "b"]]  # c and d came first


def test_another_question_setting_or_model_is_another_key(path: Path) -> None:
    inner = Counting()
    cached = CachedCompleter(inner, path)
    cached.complete(ask("a"), Sampling())
    for other in (Sampling(max_tokens=9), Sampling(seed=1), Sampling(stop=("x",)), Sampling(top_k=3), Sampling(top_p=0.5)):
        cached.complete(ask("a"), other)
    cached.complete([Conversation((Message("system", "a"), Message("user", "a")))], Sampling())
    assert len(inner.asked) == 7
    another = Counting("another")
    CachedCompleter(another, path).complete(ask("a"), Sampling())
    assert another.asked == ["a"]
    cached.complete([Conversation((Message("user", "a"),), "an id", facts={"form": "open"})], Sampling())
    assert len(inner.asked) == 7  # neither id nor facts reach the model


def test_sampled_draws_of_one_question_stay_apart(path: Path) -> None:
    sampling = Sampling(temperature=1.0)
    inner = Counting()
    cached = CachedCompleter(inner, path)
    assert [a.text for a in cached.complete(ask("a", "a", "b"), sampling)] == ["a #0", "a #1", "b #0"]
    assert [a.text for a in cached.complete(ask("a", "b", "a"), sampling)] == ["a #0", "b #0", "a #1"]
    assert len(inner.calls) == 1
    assert [a.text for a in cached.complete(ask("a", "a", "a"), sampling)] == ["a #0", "a #1", "a #2"]
    assert inner.calls[1:] == [["a", "a", "a"]]  # a third draw needs the others beside it


def test_draws_are_not_parted_between_calls(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_completer, "_KEPT_AT_ONCE", 2)
    inner = Counting()
    answers = CachedCompleter(inner, path).complete(ask("a", "b", "b", "b", "a"), Sampling(temperature=1.0))
    assert [a.text for a in answers] == ["a #0", "b #0", "b #1", "b #2", "a #1"]
    assert inner.calls == [["a", "a"], ["b", "b", "b"]]


def test_citations_come_back(path: Path) -> None:
    citation = Citation(0, 9, Span("d1", 3, 12, "page 2"), "It is", 0.9, "a.md", "A")
    cited = Answer("It is so.", citations=(citation,), unsupported=((2, 4), (5, 9)))

    class Citing(Counting):
        def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
            return [cited for _ in conversations]

    assert CachedCompleter(Citing(), path).complete(ask("a"), Sampling()) == [cited]
    assert CachedCompleter(Counting("counting"), path).complete(ask("a"), Sampling()) == [cited]


@pytest.mark.parametrize("content", [b"not a database at all", b"SQLite format 3\x00" + b"\xff" * 4096])
def test_a_damaged_file_costs_time_not_answers(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    inner = Counting()
    cached = CachedCompleter(inner, path)
    for _ in range(2):
        assert [a.text for a in cached.complete(ask("a"), Sampling())] == ["a #0"]
    assert inner.asked == ["a", "a"]


_UNKNOWN_FIELD = json.dumps({"text": "x", "citations": [], "unsupported": [], "token_ids": [], "logprobs": [], "odd": 1})


@pytest.mark.parametrize("kept", ["", "{}", "[]", "null", '{"text": 1', _UNKNOWN_FIELD, 7])
def test_a_damaged_answer_is_made_again(path: Path, kept: object) -> None:
    inner = Counting()
    cached = CachedCompleter(inner, path)
    cached.complete(ask("a", "b"), Sampling())
    with sqlite3.connect(path) as db:
        db.execute("UPDATE answers SET answer = ?", (kept,))
    db.close()
    assert [a.text for a in cached.complete(ask("a", "b"), Sampling())] == ["a #0", "b #0"]
    assert inner.asked == ["a", "b", "a", "b"]
    cached.complete(ask("a", "b"), Sampling())
    assert len(inner.asked) == 4  # and kept


def test_a_place_that_cannot_be_written_costs_time_not_answers(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    inner = Counting()
    cached = CachedCompleter(inner, tmp_path / "file" / "answers.sqlite")
    assert [a.text for a in cached.complete(ask("a"), Sampling())] == ["a #0"]


def test_more_questions_than_one_look_up_takes(path: Path) -> None:
    inner = Counting()
    many = ask(*(f"question {i}" for i in range(1_100)))
    first = CachedCompleter(inner, path).complete(many, Sampling())
    assert CachedCompleter(inner, path).complete(many, Sampling()) == first
    assert len(inner.asked) == 1_100 and max(map(len, inner.calls)) == 128
    assert CachedCompleter(inner, path).complete([], Sampling()) == []
