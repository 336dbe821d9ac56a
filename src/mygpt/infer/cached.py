"""What was computed once is kept: a cache in SQLite around an Embedder, by identity and text.

A new document embeds only its own passages. A damaged or unwritable cache costs time, never an answer.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mygpt.core.digest import digest_text, digest_value
from mygpt.infer.protocols import Embedder, Identity

_TABLE = "CREATE TABLE IF NOT EXISTS vectors (embedder TEXT, text TEXT, vector BLOB, PRIMARY KEY (embedder, text)) WITHOUT ROWID"
_LOOKED_UP_AT_ONCE = 500  # SQLite takes 999 parameters in its oldest builds


class CachedEmbedder:
    def __init__(self, embedder: Embedder, path: Path):
        self._embedder = embedder
        self._path = Path(path)
        self._of = digest_value(embedder.identity)
        self._lock = threading.Lock()

    @property
    def identity(self) -> Identity:
        return self._embedder.identity

    @property
    def dimensions(self) -> int:
        return self._embedder.dimensions

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        keys = [digest_text(text) for text in texts]
        with self._lock:
            known = self._read(set(keys))
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if new:
            vectors_ND = self._embedder.embed(list(new.values()))
            computed = dict(zip(new, vectors_ND, strict=True))
            with self._lock:
                self._write(computed)
            known |= computed
        return np.stack([known[key] for key in keys]) if keys else np.zeros((0, self.dimensions), dtype=np.float32)

    def _read(self, keys: set[str]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        wanted = sorted(keys)
        with contextlib.suppress(sqlite3.Error, OSError), self._database() as db:
            for start in range(0, len(wanted), _LOOKED_UP_AT_ONCE):
                part = wanted[start : start + _LOOKED_UP_AT_ONCE]
                marks = ",".join("?" * len(part))
                rows = db.execute(f"SELECT text, vector FROM vectors WHERE embedder = ? AND text IN ({marks})", (self._of, *part))
                found |= {text: np.frombuffer(blob, dtype="<f4") for text, blob in rows}
        return {text: vector for text, vector in found.items() if len(vector) == self.dimensions}

    def _write(self, vectors: dict[str, np.ndarray]) -> None:
        with contextlib.suppress(sqlite3.Error, OSError), self._database() as db:
            rows = [(self._of, text, vector.astype("<f4").tobytes()) for text, vector in vectors.items()]
            db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=30)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(_TABLE)
            with db:
                yield db
        finally:
            db.close()
