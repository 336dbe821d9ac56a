"""Dataset: named splits of rows with one schema: conversations (`sft`), or two answers to one prompt, the better first (`preference`).

Payload  <split>.parquet per split, dropped.parquet (candidates that were not kept, each with its reason)
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from mygpt.artifacts.artifact import Artifact
from mygpt.artifacts.corpus import Span

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
    annotator: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)  # which systems wrote them, ...


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
_DROPPED = _CONVERSATION.append(pa.field("reason", pa.string())).append(pa.field("detail", pa.string()))


@dataclass(frozen=True)
class Dataset(Artifact):
    kind: ClassVar[str] = "dataset"

    def split(self, name: str) -> list[Conversation]:
        """The rows of one split, in order. A split that was not made is empty."""
        path = self.payload / f"{name}.parquet"
        return [_conversation(row) for row in pq.read_table(path).to_pylist()] if path.exists() else []

    def preferences(self, name: str) -> list[Preference]:
        """The rows of one split of a Dataset with schema `preference`, in order."""
        path = self.payload / f"{name}.parquet"
        return [_preference(row) for row in pq.read_table(path).to_pylist()] if path.exists() else []

    @property
    def splits(self) -> list[str]:
        return sorted(Path(p).stem for p in self.manifest.files if p != "dropped.parquet")

    @cached_property
    def dropped(self) -> list[Dropped]:
        path = self.payload / "dropped.parquet"
        rows = pq.read_table(path).to_pylist() if path.exists() else []
        return [Dropped(row.pop("reason"), _conversation(row), row["detail"]) for row in rows]


def write_conversations(folder: Path, splits: Mapping[str, Sequence[Conversation]], dropped: Sequence[Dropped] = ()) -> None:
    """The payload of a Dataset with schema `sft`."""
    for name, rows in splits.items():
        pq.write_table(pa.Table.from_pylist([_row(c) for c in rows], schema=_CONVERSATION), folder / f"{name}.parquet", compression="zstd")
    not_kept = [{**_row(d.row), "reason": d.reason, "detail": d.detail} for d in dropped]
    pq.write_table(pa.Table.from_pylist(not_kept, schema=_DROPPED), folder / "dropped.parquet", compression="zstd")


def write_preferences(folder: Path, splits: Mapping[str, Sequence[Preference]]) -> None:
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


def preference_facts(splits: Mapping[str, Sequence[Preference]]) -> dict[str, Any]:
    return {"schema": "preference", "rows": {name: len(rows) for name, rows in splits.items()}}


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
