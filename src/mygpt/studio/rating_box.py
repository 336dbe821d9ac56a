"""Where ratings are kept while people rate, and who sees what in which order.

`<home>/ratings/<name>.jsonl` holds every rating ever saved, in order, appended and synced before it is confirmed. The Ratings artefact is
made from it: the last rating of each rater on each item counts.

Items come to each rater in an order of their own, and the answers of an item too. Both follow from the seed and the rater's name, so that
they are the same when the rater comes back.
"""

import fcntl
import json
import os
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from mygpt.artifacts.ratings import Choice, Rating, Ratings, ShownAnswer, parse_rating, rating_line, ratings_facts, write_ratings
from mygpt.artifacts.recipe import publish, recipe, safe_name
from mygpt.artifacts.report import Predictions
from mygpt.core.config import Config
from mygpt.core.digest import digest_text, digest_value
from mygpt.core.errors import Refused, UsageError, from_os_error
from mygpt.core.run import Run
from mygpt.evaluate.judged import joined

MOST_ANSWERS = 9  # one digit of the keyboard for each
MOST_RATER_CHARACTERS = 80


@dataclass(frozen=True)
class RatedItem:
    """One prompt and what each system answered."""

    id: str
    prompt: str
    answers: Mapping[str, str]  # system -> text


def items_of(answers: Mapping[str, Predictions]) -> list[RatedItem]:
    """System name -> its answers to the same items, as for `judge_pairs`; or one artefact of `align/candidates`, which has all answers."""
    if len(answers) == 1:
        return _candidates(next(iter(answers.values())))
    rows = joined(list(answers.values()))
    return [
        RatedItem(group[0]["item_id"], group[0]["question"], {s: row["answer"] for s, row in zip(answers, group, strict=True)})
        for group in rows
    ]


def _candidates(made: Predictions) -> list[RatedItem]:
    if not made.manifest.facts.get("candidates"):
        fix = "Name a second one, or make several answers to each prompt (`mygpt align candidates`)."
        raise UsageError(f"{made.id} has one answer to each prompt: there is nothing to compare it with.", fix=fix)
    return [RatedItem(row["item_id"], row["question"], {a["system"]: a["text"] for a in row["answers"]}) for row in made.rows]


class RatingsConfig(Config):
    """Nothing to set: what people said is taken as it is."""


@recipe
def record_ratings(config: RatingsConfig, *, log: Path, run: Run) -> Ratings:
    """A log, or any file of that format, as an artefact: the last rating of each rater on each item, in the order they were given."""
    rows, damaged, _ = _read(log, 0, whole_lines=False)
    last: dict[tuple[str, str], Rating] = {}
    for row in rows:
        last.pop((row.rater, row.item_id), None)
        last[row.rater, row.item_id] = row
    kept = list(last.values())
    facts = {**ratings_facts(kept), "replaced": len(rows) - len(kept), "damaged_lines": damaged}
    return publish(Ratings, run, lambda folder: write_ratings(folder, kept), facts=facts, name=log.stem)


class RatingBox:
    """The log of one set of items. Safe to call from any thread, and beside another server in the same home."""

    def __init__(self, items: Sequence[RatedItem], *, home: Path, name: str, seed: int = 0):
        _require_rateable(items)
        self.items = {item.id: item for item in items}
        self.log = home / "ratings" / f"{safe_name(name)}.jsonl"
        self._home, self._seed = home, seed
        self._lock = threading.Lock()
        self._read_bytes = 0
        self._ratings: dict[str, dict[str, Rating]] = {}  # rater -> item id -> the last one
        self._unpublished = 0
        with self._lock:
            self._refresh()

    def rater(self, name: str) -> str:
        """The name without needless spaces, spelt as before if only capitals differ. Raises UsageError for what is no name."""
        name = " ".join(name.split())
        if not name or len(name) > MOST_RATER_CHARACTERS or not name.isprintable():
            fix = f"Give a name of 1 to {MOST_RATER_CHARACTERS} printable characters."
            raise UsageError(f"`{name[:MOST_RATER_CHARACTERS]}` cannot be a rater's name.", fix=fix)
        with self._lock:
            self._refresh()
            return next((known for known in self._ratings if known.casefold() == name.casefold()), name)

    def order(self, rater: str) -> list[RatedItem]:
        return self._shuffled(sorted(self.items.values(), key=lambda item: item.id), rater)

    def shown(self, rater: str, item: RatedItem) -> tuple[ShownAnswer, ...]:
        return tuple(self._shuffled([ShownAnswer(s, item.answers[s]) for s in sorted(item.answers)], f"{rater}/{item.id}"))

    def token(self, rater: str, item: RatedItem) -> str:
        """Of the order in which this rater sees the answers: ranks that come back with another one belong to another order."""
        texts = [answer.text for answer in self.shown(rater, item)]
        return digest_value([self._seed, rater.casefold(), item.id, texts])[:16]

    def ratings(self, rater: str) -> dict[str, Rating]:
        """By item id, of the items at hand."""
        with self._lock:
            self._refresh()
            return {item: rating for item, rating in self._ratings.get(rater, {}).items() if item in self.items}

    def add(self, rater: str, item_id: str, *, choice: Choice, ranks: Sequence[int], seconds: float) -> Rating:
        """Raises UsageError for an unknown item or ranks that make no sense. When it returns, the rating is on disk."""
        item = self.items.get(item_id)
        if item is None:
            raise UsageError(f"There is no item `{item_id[:80]}` to rate.", fix="Reload the page.")
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            rating = Rating(item.id, item.prompt, self.shown(rater, item), rater, choice, tuple(ranks), round(seconds, 1), created)
        except ValueError as error:
            raise UsageError(f"This rating makes no sense: {error}.", fix="Give each answer a place, or name the best only.") from error
        with self._lock:
            self._append(rating)
        return rating

    def finish(self) -> Ratings:
        """Publish what there is. The log stays, and can be added to."""
        with self._lock:
            self._refresh()
            if not self._ratings:
                raise UsageError("Nobody has rated anything yet.", fix="Rate an item first.")
            with Run(self._home, name=self.log.stem) as run, _locked(self.log):
                made = record_ratings(RatingsConfig(), log=self.log, run=run)
            self._unpublished = 0
            return made

    def close(self) -> None:
        """What was saved here since the last `finish` is published."""
        if self._unpublished:
            self.finish()

    def _shuffled(self, things: list[Any], of: str) -> list[Any]:
        random.Random(digest_text(f"{self._seed}/{of.casefold()}")).shuffle(things)
        return things

    def _append(self, rating: Rating) -> None:
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.log) as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
                cut = file.read(1) not in (b"", b"\n")  # a line that a crash cut short is ended first
                file.write(b"\n" * cut + rating_line(rating).encode("ascii"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise from_os_error(error) from error
        self._unpublished += 1
        self._refresh()

    def _refresh(self) -> None:
        """Take in what was appended since the last time, by whomever."""
        if not self.log.exists():
            return
        rows, _, self._read_bytes = _read(self.log, self._read_bytes, whole_lines=True)
        for row in rows:
            item = self.items.get(row.item_id)
            if item is not None and (row.prompt, {a.system: a.text for a in row.answers}) != (item.prompt, dict(item.answers)):
                raise Refused(
                    f"{self.log} holds a rating by {row.rater} of item `{row.item_id}` with another prompt or other answers.",
                    fix="Choose another name for these ratings.",
                )
            self._ratings.setdefault(row.rater, {})[row.item_id] = row


def _read(log: Path, start: int, *, whole_lines: bool) -> tuple[list[Rating], int, int]:
    """Ratings from byte `start` on, the number of lines that a crash cut, and where reading stopped.

    Raises UsageError, naming line and field, for a line that is JSON and no rating: that was no crash.
    """
    try:
        with open(log, "rb") as file:
            file.seek(start)
            content = file.read()
    except OSError as error:
        raise from_os_error(error) from error
    if whole_lines:  # somebody may be writing the last one
        content = content[: content.rfind(b"\n") + 1]
    rows, damaged = [], 0
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip() and _is_json(line):
            rows.append(parse_rating(line, where=f"{log.name}, line {number}" + f" after byte {start}" * bool(start)))
        elif line.strip():
            damaged += 1
    return rows, damaged, start + len(content)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


@contextmanager
def _locked(log: Path) -> Iterator[BinaryIO]:
    """Against another server in the same home."""
    with open(log, "ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _require_rateable(items: Sequence[RatedItem]) -> None:
    num_ids = len({item.id for item in items})
    if not items or num_ids != len(items):
        raise UsageError(f"{len(items)} items with {num_ids} ids cannot be rated.", fix="Give one item at least, each its own id.")
    for item in items:
        if not 2 <= len(item.answers) <= MOST_ANSWERS:
            what = f"Item `{item.id}` has {len(item.answers)} answers; 2 to {MOST_ANSWERS} can be compared."
            raise UsageError(what, fix="Give the answers of other systems.")
