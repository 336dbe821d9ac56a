"""Answers that were computed once are kept, so that interrupted work goes on where it stopped. Itself a Completer.

Keyed by the completer's identity, the sampling and the messages: greedy or seeded answers are the same each time.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from mygpt.artifacts.dataset import Conversation
from mygpt.core.digest import digest_value
from mygpt.infer.protocols import Answer, Completer, Identity, Sampling

_KEPT_AT_ONCE = 128  # conversations computed between two writes


class CachedCompleter:
    def __init__(self, completer: Completer, path: Path):
        self._completer = completer
        self._path = path

    @property
    def identity(self) -> Identity:
        return self._completer.identity

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        common = digest_value([self.identity, asdict(sampling)])
        keys = [digest_value([common, [[m.role, m.content] for m in c.messages]]) for c in conversations]
        with self._database() as db:
            known = dict(row for key in set(keys) for row in db.execute("SELECT key, answer FROM answers WHERE key = ?", (key,)))
        new = list({key: c for key, c in zip(keys, conversations, strict=True) if key not in known}.items())
        # Like conversations stay together: they share prefixes.
        for start in range(0, len(new), _KEPT_AT_ONCE):
            part = new[start : start + _KEPT_AT_ONCE]
            answers = self._completer.complete([c for _, c in part], sampling)
            computed = {key: json.dumps(_plain(answer)) for (key, _), answer in zip(part, answers, strict=True)}
            with self._database() as db:
                db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", computed.items())
            known |= computed
        return [_answer(json.loads(known[key])) for key in keys]

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=30)
        try:
            db.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT) WITHOUT ROWID")
            with db:
                yield db
        finally:
            db.close()


def _plain(answer: Answer) -> dict[str, object]:
    return {
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "token_ids": answer.token_ids,
        "logprobs": answer.logprobs,
        "prompt_tokens": answer.prompt_tokens,
    }


def _answer(plain: dict) -> Answer:
    return Answer(**{**plain, "token_ids": tuple(plain["token_ids"]), "logprobs": tuple(plain["logprobs"])})
