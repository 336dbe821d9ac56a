"""Dataset: named splits of rows with one schema.

    sft         conversations                                    `split`
    text        raw text, one text a row                         `texts`; in `split` each row is one message of the role `text`
    preference  two answers to one prompt, the better first      `preferences`
    class       a text, or two, and its label                    `labelled`
    tagged      words, each with its tag (BIO)                   `tagged`
    pairs       two texts that belong together                   `pairs`

Of every schema: `learnable_texts`, all that stands in its rows, for who looks for a text in them.

Payload  <split>.parquet per split, dropped.parquet (candidates that were not kept, each with its reason)
Facts    schema, rows (per split); of `class` and `tagged` also labels, in the order in which a head numbers them
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from mygpt.artifacts.artifact import Artifact
from mygpt.artifacts.corpus import Span
from mygpt.core.errors import UsageError

Role = Literal["system", "user", "assistant", "tool", "text"]  # text: see `Conversation.raw_text`


@dataclass(frozen=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True)
class Conversation:
    messages: tuple[Message, ...]
    id: str = ""
    sources: tuple[Span, ...] = ()  # where in the documents the answer stands
    facts: Mapping[str, str] = field(default_factory=dict)  # how it was made: form of question, passage id, ...

    @property
    def question(self) -> str:
        """The last user turn."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def answer(self) -> str:
        """The last assistant turn, the reference in evaluation; "" when there is none."""
        return next((m.content for m in reversed(self.messages) if m.role == "assistant"), "")

    @property
    def raw_text(self) -> str | None:
        """Of a conversation that is none, one message of the role `text`: what a model continues as it stands, without a chat template."""
        return self.messages[0].content if [m.role for m in self.messages] == ["text"] else None

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages before the last assistant turn."""
        return self.messages[:-1] if self.messages and self.messages[-1].role == "assistant" else self.messages


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt, as somebody preferred them."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    id: str = ""
    margin: int | None = None  # places between the two in a ranking; None where there was none
    annotator: str = ""  # "" where it is what several said together
    facts: Mapping[str, str] = field(default_factory=dict)  # which systems wrote them, `probability` that chosen is better, ...


@dataclass(frozen=True)
class LabelledText:
    text: str
    label: str
    pair: str = ""  # a second text, where the label is of two (does one follow from the other?)
    id: str = ""


@dataclass(frozen=True)
class TaggedWords:
    """`tags[i]` is of `words[i]`: `O`, or `B-X` where an entity of kind X begins, `I-X` inside it."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    id: str = ""


@dataclass(frozen=True)
class TextPair:
    """What is asked and what answers it, or two texts of one meaning; negatives are near and wrong."""

    anchor: str
    positive: str
    negatives: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True)
class Dropped:
    """A candidate that was not kept."""

    reason: str  # a stable phrase, counted: "not grounded", "duplicate", ...
    row: Conversation
    detail: str = ""


_SPAN = pa.struct([("document_id", pa.string()), ("start", pa.int64()), ("end", pa.int64()), ("place", pa.string())])
_CONVERSATION = pa.schema(
    [
        ("id", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("sources", pa.list_(_SPAN)),
        ("facts", pa.map_(pa.string(), pa.string())),
    ]
)
_PREFERENCE = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("margin", pa.int64()),
        ("annotator", pa.string()),
        ("facts", pa.map_(pa.string(), pa.string())),
    ]
)
_TEXTS = pa.list_(pa.string())
_CLASS = pa.schema([(name, pa.string()) for name in ("id", "text", "pair", "label")])
_TAGGED = pa.schema([("id", pa.string()), ("words", _TEXTS), ("tags", _TEXTS)])
_PAIRS = pa.schema([("id", pa.string()), ("anchor", pa.string()), ("positive", pa.string()), ("negatives", _TEXTS)])
_READ_ROWS, _READ_BYTES = 256, 1 << 16  # held at a time
_DROPPED = _CONVERSATION.append(pa.field("reason", pa.string())).append(pa.field("detail", pa.string()))


@dataclass(frozen=True)
class Dataset(Artifact):
    kind: ClassVar[str] = "dataset"

    def split(self, name: str) -> list[Conversation]:
        """The rows of one split of a Dataset with schema `sft` or `text`, in order. A split that was not made is empty."""
        return list(self.stream(name))

    def stream(self, name: str) -> Iterator[Conversation]:
        """The same, read in parts: a split may be larger than memory."""
        return map(_conversation, self._rows(name, "sft", "text"))

    def texts(self, name: str) -> list[str]:
        """The rows of one split of a Dataset with schema `text`, in order."""
        return [text for _, text in self.stream_texts(name)]

    def stream_texts(self, name: str) -> Iterator[tuple[str, str]]:
        """(id, text) of the same, read in parts."""
        return ((row["id"], row["messages"][0]["content"]) for row in self._rows(name, "text"))

    def preferences(self, name: str) -> list[Preference]:
        """The rows of one split of a Dataset with schema `preference`, in order."""
        return [_preference(row) for row in self._rows(name, "preference")]

    def labelled(self, name: str) -> list[LabelledText]:
        """The rows of one split of a Dataset with schema `class`, in order."""
        return [LabelledText(**row) for row in self._rows(name, "class")]

    def tagged(self, name: str) -> list[TaggedWords]:
        """The rows of one split of a Dataset with schema `tagged`, in order."""
        return [TaggedWords(tuple(row["words"]), tuple(row["tags"]), row["id"]) for row in self._rows(name, "tagged")]

    def pairs(self, name: str) -> list[TextPair]:
        """The rows of one split of a Dataset with schema `pairs`, in order."""
        return [TextPair(row["anchor"], row["positive"], tuple(row["negatives"]), row["id"]) for row in self._rows(name, "pairs")]

    def answered(self, name: str) -> list[Conversation]:
        """The same as `split`; of the schema `preference` each prompt with an answer that was preferred, once."""
        if self.schema != "preference":
            return self.split(name)
        rows = (Conversation((*row.prompt, Message("assistant", row.chosen)), row.id, facts=row.facts) for row in self.preferences(name))
        first: dict[tuple[Message, ...], Conversation] = {}
        for row in rows:
            first.setdefault(row.messages, row)
        return list(first.values())

    def learnable_texts(self, name: str) -> Iterator[str]:
        """What a model can have read in one split, whatever the schema, read in parts: a text for each way through a row."""
        return chain.from_iterable(map(_LEARNABLE[self.schema], self._rows(name, self.schema)))

    @property
    def schema(self) -> str:
        return str(self.manifest.facts.get("schema", "sft"))

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.manifest.facts["labels"])

    def _rows(self, name: str, *schemas: str) -> Iterator[dict[str, Any]]:
        if self.schema not in schemas:
            needed = " or ".join(f"`{schema}`" for schema in schemas)
            raise UsageError(
                f"{self.id} has rows of the schema `{self.schema}`, and this needs {needed}.", fix=f"Name a dataset of schema {needed}."
            )
        path = self.payload / f"{name}.parquet"
        return _read_in_parts(path) if path.exists() else iter(())

    @property
    def splits(self) -> list[str]:
        return sorted(Path(p).stem for p in self.manifest.files if p != "dropped.parquet")

    @cached_property
    def dropped(self) -> list[Dropped]:
        path = self.payload / "dropped.parquet"
        rows = pq.read_table(path).to_pylist() if path.exists() else []
        return [Dropped(row.pop("reason"), _conversation(row), row["detail"]) for row in rows]


def _turns(messages: Sequence[Mapping[str, str]], *more: str) -> str:
    return "\n".join([*(message["content"] for message in messages), *more])


_LEARNABLE: Mapping[str, Callable[[Mapping[str, Any]], Iterable[str]]] = {
    "sft": lambda row: [_turns(row["messages"])],
    "text": lambda row: [_turns(row["messages"])],
    "preference": lambda row: [_turns(row["prompt"], row["chosen"]), _turns(row["prompt"], row["rejected"])],
    "class": lambda row: ["\n".join(part for part in (row["text"], row["pair"], row["label"]) if part)],
    "tagged": lambda row: [" ".join(row["words"])],
    "pairs": lambda row: ["\n".join([row["anchor"], row["positive"]]), *row["negatives"]],
}


def _read_in_parts(path: Path) -> Iterator[dict[str, Any]]:
    """Without buffers of whole columns, which pyarrow reads ahead where it is not told otherwise."""
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=_READ_BYTES) as file:
        for rows in file.iter_batches(_READ_ROWS, use_threads=False):
            yield from rows.to_pylist()


def write_conversations(folder: Path, splits: Mapping[str, Sequence[Conversation]], dropped: Sequence[Dropped] = ()) -> None:
    """The payload of a Dataset with schema `sft`."""
    for name, rows in splits.items():
        pq.write_table(pa.Table.from_pylist([_row(c) for c in rows], schema=_CONVERSATION), folder / f"{name}.parquet", compression="zstd")
    _write_dropped(folder, dropped)


def _write_dropped(folder: Path, dropped: Sequence[Dropped]) -> None:
    not_kept = [{**_row(d.row), "reason": d.reason, "detail": d.detail} for d in dropped]
    pq.write_table(pa.Table.from_pylist(not_kept, schema=_DROPPED), folder / "dropped.parquet", compression="zstd")


def write_preferences(folder: Path, splits: Mapping[str, Sequence[Preference]], dropped: Sequence[Dropped] = ()) -> None:
    """The payload of a Dataset with schema `preference`."""
    for name, rows in splits.items():
        listed = [
            {
                **{key: getattr(row, key) for key in ("id", "chosen", "rejected", "margin", "annotator")},
                "prompt": [{"role": m.role, "content": m.content} for m in row.prompt],
                "facts": list(row.facts.items()),
            }
            for row in rows
        ]
        pq.write_table(pa.Table.from_pylist(listed, schema=_PREFERENCE), folder / f"{name}.parquet", compression="zstd")
    _write_dropped(folder, dropped)


def write_labelled(folder: Path, splits: Mapping[str, Sequence[LabelledText]]) -> None:
    """The payload of a Dataset with schema `class`."""
    _write_rows(folder, splits, _CLASS)


def write_tagged(folder: Path, splits: Mapping[str, Sequence[TaggedWords]]) -> None:
    """The payload of a Dataset with schema `tagged`."""
    _write_rows(folder, splits, _TAGGED)


def write_pairs(folder: Path, splits: Mapping[str, Sequence[TextPair]]) -> None:
    """The payload of a Dataset with schema `pairs`."""
    _write_rows(folder, splits, _PAIRS)


def _write_rows(folder: Path, splits: Mapping[str, Sequence[Any]], schema: pa.Schema) -> None:
    for name, rows in splits.items():
        table = pa.Table.from_pylist([{key: getattr(row, key) for key in schema.names} for row in rows], schema=schema)
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")


def row_facts(schema: str, splits: Mapping[str, Sequence[Any]], **more: Any) -> dict[str, Any]:
    return {"schema": schema, "rows": {name: len(rows) for name, rows in splits.items()}, **more}


def preference_facts(splits: Mapping[str, Sequence[Preference]], dropped: Sequence[Dropped] = ()) -> dict[str, Any]:
    return {
        "schema": "preference",
        "rows": {name: len(rows) for name, rows in splits.items()},
        "dropped": dict(sorted(Counter(d.reason for d in dropped).items())),
    }


def conversation_facts(splits: Mapping[str, Sequence[Conversation]], dropped: Sequence[Dropped] = ()) -> dict[str, Any]:
    return {
        "schema": "sft",
        "rows": {name: len(rows) for name, rows in splits.items()},
        "dropped": dict(sorted(Counter(d.reason for d in dropped).items())),
    }


def _row(c: Conversation) -> dict[str, Any]:
    return {
        "id": c.id,
        "messages": [{"role": m.role, "content": m.content} for m in c.messages],
        "sources": [{"document_id": s.document_id, "start": s.start, "end": s.end, "place": s.place} for s in c.sources],
        "facts": list(c.facts.items()),
    }


def _conversation(row: Mapping[str, Any]) -> Conversation:
    return Conversation(
        messages=tuple(Message(m["role"], m["content"]) for m in row["messages"]),
        id=row["id"],
        sources=tuple(Span(**s) for s in row["sources"]),
        facts=dict(row["facts"] or ()),
    )


def _preference(row: Mapping[str, Any]) -> Preference:
    return Preference(
        prompt=tuple(Message(m["role"], m["content"]) for m in row["prompt"]),
        facts=dict(row["facts"] or ()),
        **{key: row[key] for key in ("chosen", "rejected", "id", "margin", "annotator")},
    )
