"""The catalogue: a SQLite index over the manifests, so that a request is answered without reading every one of them.

It holds nothing that the manifests do not. Every question first brings it up to date with the folders on disk; a corrupt one is thrown
away and built anew; where it cannot be written (read-only home, full disk) the manifests are read instead.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from mygpt.artifacts.manifest import Manifest
from mygpt.core.errors import Damaged

_TABLE = """CREATE TABLE IF NOT EXISTS entries
            (folder TEXT, changed_ns INTEGER, request TEXT, created TEXT, PRIMARY KEY (folder, changed_ns))"""
_REQUESTS = "CREATE INDEX IF NOT EXISTS entries_by_request ON entries (request)"


class Catalogue:
    def __init__(self, path: Path, artifacts: Path, read: Callable[[Path], Manifest]):
        self.path, self.artifacts, self._read = path, artifacts, read

    def folders_for(self, request: str) -> list[Path]:
        """The folders whose manifests say that they answer `request`, newest first."""
        if not self.artifacts.is_dir():
            return []
        for _ in range(2):
            try:
                with closing(self._up_to_date()) as db:
                    rows = db.execute("SELECT folder FROM entries WHERE request = ? ORDER BY created DESC", (request,)).fetchall()
                return [self.artifacts / folder for (folder,) in rows]
            except sqlite3.OperationalError:  # locked, read-only, disk full
                break
            except sqlite3.DatabaseError:  # corrupt
                try:
                    self.discard()
                except OSError:
                    break
        entries = [self._entry(folder, 0) for folder, _ in self._on_disk()]
        return [self.artifacts / e[0] for e in sorted(entries, key=lambda e: e[3], reverse=True) if e[2] == request]

    def rebuild(self) -> int:
        """From nothing but the manifests; returns how many artefacts it lists. May raise OSError and sqlite3.Error."""
        self.discard()
        with closing(self._up_to_date()) as db:
            (count,) = db.execute("SELECT count(*) FROM entries WHERE request != ''").fetchone()
        return int(count)

    def discard(self) -> None:
        for suffix in ("", "-journal", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def _up_to_date(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=10)
        try:
            db.execute("PRAGMA synchronous = OFF")  # after a power cut it may be corrupt, and is built anew
            with db:
                db.execute(_TABLE)
                db.execute(_REQUESTS)
                known = set(db.execute("SELECT folder, changed_ns FROM entries"))
                present = set(self._on_disk())
                db.executemany("DELETE FROM entries WHERE folder = ? AND changed_ns = ?", known - present)
                db.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", [self._entry(*new) for new in present - known])
        except BaseException:
            db.close()
            raise
        return db

    def _on_disk(self) -> list[tuple[str, int]]:
        """(folder below artifacts, when its manifest was written) of each artefact."""
        found = []
        for manifest in self.artifacts.glob("*/*/manifest.json"):
            try:
                found.append((f"{manifest.parent.parent.name}/{manifest.parent.name}", manifest.stat().st_mtime_ns))
            except FileNotFoundError:  # removed meanwhile
                continue
        return found

    def _entry(self, folder: str, changed_ns: int) -> tuple[str, int, str, str]:
        try:
            manifest = self._read(self.artifacts / folder)
        except Damaged:
            return folder, changed_ns, "", ""
        return folder, changed_ns, manifest.request, manifest.created
