"""Answers that were computed once are kept, so that interrupted work goes on where it stopped. Itself a Completer.

Kept one by one where the completer gives them as they finish (a server's), else after every call for 128 or so.
Keyed by the completer's identity, the sampling and the messages: greedy or seeded answers are the same each time. A sampled answer to
a conversation that is given twice in one call has a key for each draw. A damaged or unwritable cache costs time, never an answer.
"""

import contextlib
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mygpt.artifacts.corpus import Span
from mygpt.artifacts.dataset import Conversation
from mygpt.core.digest import digest_value
from mygpt.infer.protocols import Answer, Citation, Completer, Identity, Sampling
from mygpt.infer.repeats import occurrences

_KEPT_AT_ONCE = 128  # conversations computed between two writes
_LOOKED_UP_AT_ONCE = 500  # SQLite takes 999 parameters in its oldest builds


class CachedCompleter:
    def __init__(self, completer: Completer, path: Path):
        self._completer = completer
        self._path = Path(path)

    @property
    def identity(self) -> Identity:
        return self._completer.identity

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        common = digest_value([self.identity, asdict(sampling)])
        asked = [digest_value([common, [[m.role, m.content] for m in c.messages]]) for c in conversations]
        numbers = occurrences(asked) if sampling.temperature > 0 else [0] * len(asked)
        keys = [f"{request}/{number}" for request, number in zip(asked, numbers, strict=True)]
        known = self._read(set(keys))
        draws: dict[str, dict[str, Conversation]] = {}  # of each request; new ones are made beside the known: a second draw needs a first
        for request, key, conversation in zip(asked, keys, conversations, strict=True):
            draws.setdefault(request, {})[key] = conversation
        # Neighbours stay together: they share prefixes.
        for part in _parts(own for own in draws.values() if not own.keys() <= known.keys()):
            for computed in self._computed(part, sampling):
                self._write(computed)
                known |= computed
        return [known[key] for key in keys]

    def _computed(self, part: Mapping[str, Conversation], sampling: Sampling) -> Iterator[dict[str, Answer]]:
        """In portions, each as soon as it is there."""
        keys, conversations = list(part), list(part.values())
        as_finished = getattr(self._completer, "as_finished", None)
        if as_finished is None:
            yield dict(zip(keys, self._completer.complete(conversations, sampling), strict=True))
            return
        for place, answer in as_finished(conversations, sampling):
            yield {keys[place]: answer}

    def _read(self, keys: Collection[str]) -> dict[str, Answer]:
        found: dict[str, Answer] = {}
        wanted = sorted(keys)
        with contextlib.suppress(sqlite3.Error, OSError), self._database() as db:
            for start in range(0, len(wanted), _LOOKED_UP_AT_ONCE):
                part = wanted[start : start + _LOOKED_UP_AT_ONCE]
                rows = db.execute(f"SELECT key, answer FROM answers WHERE key IN ({','.join('?' * len(part))})", part)
                found |= {key: answer for key, kept in rows if (answer := _answer(kept)) is not None}
        return found

    def _write(self, answers: Mapping[str, Answer]) -> None:
        with contextlib.suppress(sqlite3.Error, OSError), self._database() as db:
            rows = [(key, json.dumps(asdict(answer))) for key, answer in answers.items()]
            db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=30)
        try:
            db.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT) WITHOUT ROWID")
            with db:
                yield db
        finally:
            db.close()


def _parts(groups: Iterable[dict[str, Conversation]]) -> Iterator[dict[str, Conversation]]:
    """Whole groups together, until they are enough for one call."""
    part: dict[str, Conversation] = {}
    for group in groups:
        part |= group
        if len(part) >= _KEPT_AT_ONCE:
            yield part
            part = {}
    if part:
        yield part


def _answer(kept: Any) -> Answer | None:
    """As it was written; None where it no longer is."""
    try:
        plain = json.loads(kept)
        plain["citations"] = tuple(Citation(**{**c, "span": Span(**c["span"])}) for c in plain["citations"])
        plain["unsupported"] = tuple((start, end) for start, end in plain["unsupported"])
        plain["passages"] = tuple(plain.get("passages", ()))
        return Answer(**{**plain, "token_ids": tuple(plain["token_ids"]), "logprobs": tuple(plain["logprobs"])})
    except (ValueError, TypeError, KeyError):
        return None
