"""Make a SearchIndex: every passage of a Corpus in SQLite FTS5, and its exact dense vector.

Passages are found by their heading (document title and place) as well as by their text, in words and in vectors.
We differ  above `max_dense_passages` only evenly chosen passages get a vector here; the others are found by their words, and search
           embeds those it finds. Exact search outgrows NumPy at about 300,000 passages.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mygpt.artifacts.corpus import Corpus, Passage
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.search_index import SCHEMA, SearchIndex
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.infer.protocols import Embedder
from mygpt.rag.words import spaced, terms

_EMBEDDED_AT_ONCE = 256  # passages between two signs of progress


class IndexConfig(Config):
    max_dense_passages: int = 50_000  # about seven minutes on two cores in bfloat16, twenty in float32


@recipe
def build_index(config: IndexConfig, *, corpus: Corpus, embedder: Embedder, run: Run) -> SearchIndex:
    dense = _evenly(corpus.num_passages, config.max_dense_passages)
    if len(dense) < corpus.num_passages:
        run.warn(
            f"{corpus.num_passages:,} passages: {len(dense):,} get a vector now, the others are found by their words (max_dense_passages)."
        )
    vectors_VD = _embed([searched_text(passage) for passage in corpus.passages_at(dense)], embedder, run)
    characters = corpus.characters_by_language
    language = max(characters, key=lambda name: characters[name], default="")

    def write(folder: Path) -> None:
        np.save(folder / "vectors.npy", vectors_VD, allow_pickle=False)
        _write_passages(folder / "passages.sqlite", corpus, dense, language, run)

    facts = {
        "passages": corpus.num_passages,
        "documents": corpus.num_documents,
        "dimensions": embedder.dimensions,
        "vectors": len(dense),
        "language": language,
        "corpus": corpus.digest,
        "embedder": embedder.identity,
    }
    return publish(SearchIndex, run, write, facts=facts)


def heading(passage: Passage) -> str:
    """The title of the document and the place in it, where they say something."""
    parts = dict.fromkeys(part for part in (passage.title.strip(), passage.span.place.strip()) if part)
    return " > ".join(parts)


def searched_text(passage: Passage) -> str:
    """What the embedder reads of a passage."""
    return f"{heading(passage)}\n{passage.text}".strip()


def _embed(texts: Sequence[str], embedder: Embedder, run: Run) -> np.ndarray:
    vectors_VD = np.zeros((len(texts), embedder.dimensions), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))  # alike lengths share a batch
    progress = run.progress(len(texts), "passages")
    for start in range(0, len(order), _EMBEDDED_AT_ONCE):
        rows = order[start : start + _EMBEDDED_AT_ONCE]
        vectors_VD[rows] = embedder.embed([texts[i] for i in rows])
        progress.advance(len(rows))
    return vectors_VD


def _evenly(num: int, most: int) -> list[int]:
    """At most `most` of `num` rows, in equal steps, in order."""
    return list(range(num)) if num <= most else [i * num // most for i in range(most)]


def _write_passages(path: Path, corpus: Corpus, dense: Sequence[int], language: str, run: Run) -> None:
    stemmed = "porter " if language in ("en", "") else ""
    vector_of = {number: row for row, number in enumerate(dense)}
    num_with: Counter[str] = Counter()
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = OFF")  # the folder is published whole or not at all
        db.execute("PRAGMA synchronous = OFF")
        db.executescript(SCHEMA.format(tokenize=f"{stemmed}unicode61 remove_diacritics 2"))
        db.execute("BEGIN")
        for d in corpus.stream_documents():
            row = (d.id, d.path, d.text, d.title, d.media_type, d.sha256, d.bytes, d.language, json.dumps(d.places, ensure_ascii=False))
            db.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        progress = run.progress(corpus.num_passages, "passages indexed")
        for number, p in enumerate(corpus.stream_passages()):
            s = p.span
            values = (number, p.id, s.document_id, s.start, s.end, s.place, p.text, p.title, p.path, vector_of.get(number))
            db.execute("INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
            db.execute("INSERT INTO passages_fts (rowid, heading, text) VALUES (?, ?, ?)", (number, spaced(heading(p)), spaced(p.text)))
            num_with.update(set(terms(searched_text(p))))
            progress.advance()
        db.executemany("INSERT INTO terms VALUES (?, ?)", sorted(num_with.items()))
        db.execute("COMMIT")
    finally:
        db.close()
