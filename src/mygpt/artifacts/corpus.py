"""Corpus: documents as converted text, cut into passages, each traceable to its place in the original.

Payload  documents.parquet  one row per document      passages.parquet  one row per passage
         skipped.json       files that were not read, with the reason and what to do
Facts    documents, passages, skipped, characters; languages (documents by language), characters_by_language
Offsets  are characters (Python string indices) into the document's stored converted text, end exclusive.

A corpus may be larger than memory: `stream_*` and the chosen passages read a part at a time, `documents` and `passages` all at once.
"""

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

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


_ROW_GROUP_CHARACTERS = 16_000_000  # of text held in memory at a time, in writing and in reading


@dataclass(frozen=True)
class Corpus(Artifact):
    kind: ClassVar[str] = "corpus"

    @property
    def num_documents(self) -> int:
        return int(self.manifest.facts["documents"])

    @property
    def num_passages(self) -> int:
        return int(self.manifest.facts["passages"])

    @property
    def characters_by_language(self) -> dict[str, int]:
        """Under "" what no language was recognised for."""
        return dict(self.manifest.facts["characters_by_language"])

    def stream_documents(self) -> Iterator[Document]:
        """In the order of their paths."""
        for rows in _row_groups(self.payload / "documents.parquet"):
            yield from map(_document, rows.to_pylist())

    def stream_passages(self) -> Iterator[Passage]:
        """In the order of documents and offsets."""
        for rows in _row_groups(self.payload / "passages.parquet"):
            yield from map(_passage, rows.to_pylist())

    def passages_at(self, numbers: Sequence[int]) -> list[Passage]:
        """The passages with these numbers (rising, from 0, in the order of `stream_passages`)."""
        found, first = list[Passage](), 0
        for rows in _row_groups(self.payload / "passages.parquet"):
            after = first + rows.num_rows
            wanted = [number - first for number in numbers[bisect_left(numbers, first) : bisect_left(numbers, after)]]
            found += map(_passage, rows.take(pa.array(wanted, pa.int64())).to_pylist())
            first = after
        return found

    def passages_in(self, document_ids: Iterable[str]) -> list[Passage]:
        """All passages of these documents, in order."""
        wanted = [("document_id", "in", sorted(set(document_ids)))]
        return list(map(_passage, pq.read_table(self.payload / "passages.parquet", filters=wanted).to_pylist())) if wanted[0][2] else []

    @cached_property
    def languages(self) -> dict[str, str]:
        """Document id -> language, "" when unsure."""
        columns = pq.read_table(self.payload / "documents.parquet", columns=["id", "language"])
        return dict(zip(*(column.to_pylist() for column in columns.columns), strict=True))

    @cached_property
    def documents(self) -> dict[str, Document]:
        """By id, in the order of their paths."""
        return {document.id: document for document in self.stream_documents()}

    @cached_property
    def passages(self) -> list[Passage]:
        """In the order of documents and offsets."""
        return list(self.stream_passages())

    @cached_property
    def skipped(self) -> list[Skipped]:
        return [Skipped(**row) for row in json.loads((self.payload / "skipped.json").read_text(encoding="utf-8"))]


def write_corpus(folder: Path, read: Iterable[tuple[Document, Sequence[Passage]]], skipped: list[Skipped]) -> dict[str, Any]:
    """Write a Corpus payload while it is read, and return its facts: `publish(Corpus, run, lambda folder: write_corpus(folder, ...))`.

    `skipped` may grow while `read` goes on.
    """
    documents, characters = Counter[str](), Counter[str]()
    num_passages = 0
    with _Rows(folder / "documents.parquet", _DOCUMENTS) as document_rows, _Rows(folder / "passages.parquet", _PASSAGES) as passage_rows:
        for document, passages in read:
            document_rows.add({**asdict(document), "places": [{"start": s, "place": p} for s, p in document.places]})
            for passage in passages:
                passage_rows.add(_passage_row(passage))
            documents[document.language] += 1
            characters[document.language] += len(document.text)
            num_passages += len(passages)
    listed = [asdict(one) for one in sorted(skipped, key=lambda one: one.path)]
    (folder / "skipped.json").write_text(json.dumps(listed, ensure_ascii=False, indent=1), encoding="utf-8")
    return {
        "documents": documents.total(),
        "passages": num_passages,
        "skipped": len(listed),
        "characters": characters.total(),
        "languages": dict(sorted(documents.items(), key=lambda item: (-item[1], item[0]))),
        "characters_by_language": dict(sorted(characters.items(), key=lambda item: (-item[1], item[0]))),
    }


class _Rows:
    """A Parquet file written in row groups of about the same amount of text."""

    def __init__(self, path: Path, schema: pa.Schema):
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._characters = 0

    def __enter__(self) -> "_Rows":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is None:
            self._flush()
        self._writer.close()

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._characters += len(row["text"])
        if self._characters >= _ROW_GROUP_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._characters = [], 0


def _row_groups(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number)


def _document(row: dict[str, Any]) -> Document:
    return Document(**{**row, "places": tuple((place["start"], place["place"]) for place in row["places"])})


def _passage(row: dict[str, Any]) -> Passage:
    return Passage(row["id"], Span(row["document_id"], row["start"], row["end"], row["place"]), row["text"], row["title"], row["path"])


def _passage_row(passage: Passage) -> dict[str, Any]:
    span = passage.span
    stored = {"id": passage.id, "document_id": span.document_id, "start": span.start, "end": span.end, "place": span.place}
    return {**stored, "text": passage.text, "title": passage.title, "path": passage.path}
