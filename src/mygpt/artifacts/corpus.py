"""Corpus: documents as converted text, cut into passages, each traceable to its place in the original.

Payload  documents.parquet  one row per document      passages.parquet  one row per passage
         skipped.json       files that were not read, with the reason and what to do
Offsets  are characters (Python string indices) into the document's stored converted text, end exclusive.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from mygpt.artifacts.artifact import Artifact


@dataclass(frozen=True)
class Span:
    """A stretch of a document's stored text, and where that is in the original."""

    document_id: str
    start: int
    end: int
    place: str = ""  # for people: "page 3", "sheet Prices", "slide 2", "Install > Linux"


@dataclass(frozen=True)
class Document:
    id: str  # digest of path and text, 16 characters
    path: str  # as in the source, relative to it
    text: str  # converted; Markdown where the original had structure
    title: str
    media_type: str  # "application/pdf"
    sha256: str  # of the original file
    bytes: int  # of the original file
    language: str = ""  # ISO 639-1, "" when unsure
    places: tuple[tuple[int, str], ...] = ()  # (start offset, place) in order: each place holds until the next


@dataclass(frozen=True)
class Passage:
    id: str  # digest of document id and offsets, 16 characters
    span: Span
    text: str  # == document.text[span.start:span.end]
    title: str  # of the document
    path: str  # of the document


@dataclass(frozen=True)
class Skipped:
    """A file that was not read: why, and what the user can do."""

    path: str
    reason: str  # a stable word: "encrypted", "no text", "corrupt", "too large", ...
    detail: str
    fix: str


_DOCUMENTS = pa.schema(
    [
        ("id", pa.string()),
        ("path", pa.string()),
        ("text", pa.large_string()),
        ("title", pa.string()),
        ("media_type", pa.string()),
        ("sha256", pa.string()),
        ("bytes", pa.int64()),
        ("language", pa.string()),
        ("places", pa.list_(pa.struct([("start", pa.int64()), ("place", pa.string())]))),
    ]
)
_PASSAGES = pa.schema(
    [
        ("id", pa.string()),
        ("document_id", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("place", pa.string()),
        ("text", pa.large_string()),
        ("title", pa.string()),
        ("path", pa.string()),
    ]
)


@dataclass(frozen=True)
class Corpus(Artifact):
    kind: ClassVar[str] = "corpus"

    @cached_property
    def documents(self) -> dict[str, Document]:
        """By id, in the order of their paths."""
        return {d.id: d for d in _read_documents(self.payload / "documents.parquet")}

    @cached_property
    def passages(self) -> list[Passage]:
        """In the order of documents and offsets."""
        rows = pq.read_table(self.payload / "passages.parquet").to_pylist()
        return [Passage(r["id"], Span(r["document_id"], r["start"], r["end"], r["place"]), r["text"], r["title"], r["path"]) for r in rows]

    @cached_property
    def skipped(self) -> list[Skipped]:
        return [Skipped(**row) for row in json.loads((self.payload / "skipped.json").read_text(encoding="utf-8"))]


@dataclass
class CorpusWriter:
    """Collects rows and writes a Corpus payload: `publish(Corpus, run, writer.write, facts=writer.facts())`."""

    documents: list[Document] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def add(self, document: Document, passages: Iterable[Passage]) -> None:
        self.documents.append(document)
        self.passages.extend(passages)

    def facts(self) -> dict[str, int]:
        return {
            "documents": len(self.documents),
            "passages": len(self.passages),
            "skipped": len(self.skipped),
            "characters": sum(len(d.text) for d in self.documents),
        }

    def write(self, folder: Path) -> None:
        rows = [{**asdict(d), "places": [{"start": s, "place": p} for s, p in d.places]} for d in self.documents]
        pq.write_table(pa.Table.from_pylist(rows, schema=_DOCUMENTS), folder / "documents.parquet", compression="zstd")
        rows = [
            {
                "id": p.id,
                "document_id": p.span.document_id,
                "start": p.span.start,
                "end": p.span.end,
                "place": p.span.place,
                "text": p.text,
                "title": p.title,
                "path": p.path,
            }
            for p in self.passages
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=_PASSAGES), folder / "passages.parquet", compression="zstd")
        skipped = json.dumps([asdict(s) for s in self.skipped], ensure_ascii=False, indent=1)
        (folder / "skipped.json").write_text(skipped, encoding="utf-8")


def _read_documents(path: Path) -> Iterator[Document]:
    for row in pq.read_table(path).to_pylist():
        places = tuple((place["start"], place["place"]) for place in row.pop("places"))
        yield Document(**row, places=places)
