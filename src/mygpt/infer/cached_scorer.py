"""Log-probabilities that were computed once are kept, so that an interrupted evaluation goes on where it stopped. Itself a Scorer.

Keyed by the scorer's identity, the prompt and the continuation. What is not a number is never kept. A damaged or unwritable cache costs
time, never a score.
"""

import contextlib
import math
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from mygpt.core.digest import digest_value
from mygpt.infer.protocols import Identity, Score, Scorer

_ASKED_AT_ONCE = 2048  # pairs in one call; pairs of one prompt stay together
_WRITTEN_AT_ONCE = 64  # scores, where the scorer gives each as it comes
_LOOKED_UP_AT_ONCE = 500  # SQLite takes 999 parameters in its oldest builds
_SCHEMA = 2  # version of the table: scores kept under another are computed again
_TABLE = f"""CREATE TABLE IF NOT EXISTS scores_{_SCHEMA}
(key TEXT PRIMARY KEY, logprob REAL, num_tokens INTEGER, num_bytes INTEGER, is_greedy INTEGER) WITHOUT ROWID"""
Pair = tuple[str, str]


class CachedScorer:
    def __init__(self, scorer: Scorer, path: Path):
        self._scorer = scorer
        self._path = Path(path)

    @property
    def identity(self) -> Identity:
        return self._scorer.identity

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        common = digest_value(self.identity)
        pairs = list(zip(prompts, continuations, strict=True))
        keys = {pair: digest_value([common, *pair]) for pair in pairs}
        known = self._read(set(keys.values()))
        new = [pair for pair in keys if keys[pair] not in known]
        for part in _parts(new):
            known |= self._computed(part, keys)
        return [known[keys[pair]] for pair in pairs]

    def _computed(self, part: Sequence[Pair], keys: Mapping[Pair, str]) -> dict[str, Score]:
        """Written a few at a time where the scorer gives each as it comes; before a fault, whatever came before it."""
        asked = [prompt for prompt, _ in part], [continuation for _, continuation in part]
        as_scored = getattr(self._scorer, "as_scored", None)
        coming = enumerate(self._scorer.score(*asked)) if as_scored is None else as_scored(*asked)
        found: dict[str, Score] = {}
        new: dict[str, Score] = {}
        try:
            for place, score in coming:
                new[keys[part[place]]] = score
                if len(new) == _WRITTEN_AT_ONCE:
                    self._write(new)
                    found, new = found | new, {}
        finally:
            self._write(new)
        return found | new

    def _read(self, keys: Collection[str]) -> dict[str, Score]:
        found: dict[str, Score] = {}
        wanted = sorted(keys)
        with contextlib.suppress(sqlite3.Error, OSError), self._database() as db:
            for start in range(0, len(wanted), _LOOKED_UP_AT_ONCE):
                part = wanted[start : start + _LOOKED_UP_AT_ONCE]
                rows = db.execute(f"SELECT * FROM scores_{_SCHEMA} WHERE key IN ({','.join('?' * len(part))})", part)
                found |= {key: Score(p, tokens, size, _truth(greedy)) for key, p, tokens, size, greedy in rows if isinstance(p, float)}
        return found

    def _write(self, scores: Mapping[str, Score]) -> None:
        rows = [(key, s.logprob, s.num_tokens, s.num_bytes, s.is_greedy) for key, s in scores.items() if math.isfinite(s.logprob)]
        with contextlib.suppress(sqlite3.Error, OSError), self._database() as db:
            db.executemany(f"INSERT OR REPLACE INTO scores_{_SCHEMA} VALUES (?, ?, ?, ?, ?)", rows)

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=30)
        try:
            db.execute(_TABLE)
            with db:
                yield db
        finally:
            db.close()


def _truth(kept: int | None) -> bool | None:
    return None if kept is None else bool(kept)


def _parts(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Enough for one call, cut between prompts: the choices of one question share theirs."""
    part: list[Pair] = []
    for pair in pairs:
        if len(part) >= _ASKED_AT_ONCE and pair[0] != part[-1][0]:
            yield part
            part = []
        part.append(pair)
    if part:
        yield part
