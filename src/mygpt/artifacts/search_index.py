"""SearchIndex: passages in SQLite FTS5 beside their exact dense vectors, with the documents they come from.

Payload  passages.sqlite  documents (whole stored text and places), passages, passages_fts (FTS5, contentless; rowid = passages.number),
                          terms (in how many passages each term stands)
         vectors.npy      float32, V x D: the row of a passage is passages.vector, null where it has none
Facts    passages, documents, dimensions, vectors, language, corpus (digest), embedder (identity)

Everything that answering and showing a source needs is here: the Corpus may be on another machine.
"""

import json
import sqlite3
import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from mygpt.artifacts.artifact import Artifact
from mygpt.artifacts.corpus import Document, Passage, Span
from mygpt.core.errors import UsageError

SCHEMA = """
CREATE TABLE documents (
    id TEXT PRIMARY KEY, path TEXT, text TEXT, title TEXT, media_type TEXT, sha256 TEXT, bytes INTEGER, language TEXT, places TEXT
) WITHOUT ROWID;
CREATE TABLE passages (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE, document_id TEXT, start INTEGER, "end" INTEGER, place TEXT,
    text TEXT, title TEXT, path TEXT, vector INTEGER
);
CREATE TABLE terms (term TEXT PRIMARY KEY, passages INTEGER) WITHOUT ROWID;
CREATE VIRTUAL TABLE passages_fts USING fts5(heading, text, content='', tokenize='{tokenize}');
"""


@dataclass(frozen=True)
class SearchIndex(Artifact):
    kind: ClassVar[str] = "search_index"

    @cached_property
    def vectors(self) -> np.ndarray:
        """(V, D) float32, mapped from disk."""
        vectors_VD: np.ndarray = np.load(self.payload / "vectors.npy", mmap_mode="r", allow_pickle=False)
        return vectors_VD

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """One read, safe from any thread."""
        with self._lock:
            return self._database.execute(query, values).fetchall()

    def passages(self, numbers: Sequence[int]) -> list[Passage]:
        """The passages with these numbers, in this order."""
        marks = ",".join("?" * len(numbers))
        found = {row[0]: row[1:] for row in self.rows(f"{_PASSAGES} WHERE number IN ({marks})", list(numbers))}
        return [_passage(found[number]) for number in numbers]

    def document(self, document_id: str) -> Document:
        """As it was converted. Raises UsageError when the index does not hold it."""
        rows = self.rows(f"{_DOCUMENTS} WHERE id = ?", (document_id,))
        if not rows:
            raise UsageError(f"The index {self.id} holds no document {document_id}.", fix="Open a citation that was given from this index.")
        kept = dict(zip(_DOCUMENT_COLUMNS, rows[0], strict=True))
        return Document(**{**kept, "places": _places(kept["places"])})

    @cached_property
    def titles(self) -> list[tuple[str, str]]:
        """(path, title) of every document, in the order of paths."""
        return [(path, title) for path, title in self.rows("SELECT path, title FROM documents ORDER BY path")]

    def place(self, document_id: str, offset: int) -> str:
        """Where this character of the stored text stands in the original: "page 3"; "" when that is not known."""
        rows = self.rows("SELECT places FROM documents WHERE id = ?", (document_id,))
        places = _places(rows[0][0]) if rows else ()
        before = bisect_right([start for start, _ in places], offset)
        return places[before - 1][1] if before else ""

    @cached_property
    def _lock(self) -> threading.Lock:
        return threading.Lock()

    @cached_property
    def _database(self) -> sqlite3.Connection:
        address = f"{(self.payload / 'passages.sqlite').absolute().as_uri()}?mode=ro&immutable=1"
        return sqlite3.connect(address, uri=True, check_same_thread=False)


_DOCUMENT_COLUMNS = ("id", "path", "text", "title", "media_type", "sha256", "bytes", "language", "places")
_DOCUMENTS = f"SELECT {', '.join(_DOCUMENT_COLUMNS)} FROM documents"
_PASSAGES = 'SELECT number, id, document_id, start, "end", place, text, title, path FROM passages'


def _passage(row: Sequence[Any]) -> Passage:
    passage_id, document_id, start, end, place, text, title, path = row
    return Passage(passage_id, Span(document_id, start, end, place), text, title, path)


def _places(stored: str) -> tuple[tuple[int, str], ...]:
    return tuple((start, place) for start, place in json.loads(stored))
