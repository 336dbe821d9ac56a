"""Thumbs up and down: each vote is on disk before it is thanked for, and becomes part of a Feedback artefact.

`<home>/feedback/<model>.jsonl` holds every vote ever, in order, appended and synced. The artefact is made from it: the last vote
on each (question, answer) counts. Up to 20 votes every one makes a new version; after that one in ten does, so that the versions
together stay within about ten times the newest. Stopping the server publishes the rest, and so does the next start after a crash.
"""

import fcntl
import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mygpt.artifacts.feedback import Feedback
from mygpt.artifacts.recipe import publish, recipe, safe_name
from mygpt.core.config import Config
from mygpt.core.errors import MygptError, from_os_error
from mygpt.core.run import Run
from mygpt.serve.api_error import ApiError

EVERY_VOTE_UP_TO = 20


class FeedbackConfig(Config):
    """Nothing to set: what people said is taken as it is."""


class Vote(BaseModel):
    """The body of POST /v1/feedback."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    rating: int  # 1 or -1
    question: str
    answer: str
    model: str
    citations: list[dict[str, Any]] = Field(default_factory=list)
    comment: str = ""


def parse_vote(body: Mapping[str, Any]) -> Vote:
    try:
        vote = Vote.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param = str(first["loc"][0])
        raise ApiError(400, f"`{param}`: {first['msg']}.", param=param, code="invalid_parameter") from error
    if vote.rating not in (1, -1):
        raise ApiError(400, f"`rating` is 1 or -1, not {vote.rating}.", param="rating", code="invalid_parameter")
    return vote


@recipe
def record_feedback(config: FeedbackConfig, *, votes: Path, run: Run) -> Feedback:
    """The votes in a log, the last on each (question, answer), in the order they were cast."""
    last: dict[tuple[str, str, str], dict[str, Any]] = {}
    damaged = 0
    for line in votes.read_bytes().split(b"\n"):
        if not line:
            continue
        try:
            row = json.loads(line)
            key = (row["model"], row["question"], row["answer"])
        except (ValueError, KeyError, TypeError):  # a line cut by a crash
            damaged += 1
            continue
        last.pop(key, None)
        last[key] = row
    rows = list(last.values())
    facts = {
        "votes": len(rows),
        "up": sum(r["rating"] > 0 for r in rows),
        "down": sum(r["rating"] < 0 for r in rows),
        "damaged_lines": damaged,
    }

    def write(folder: Path) -> None:
        (folder / "feedback.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")

    return publish(Feedback, run, write, facts=facts, name=votes.stem)


class FeedbackBox:
    """Where one server puts votes. Safe to call from any thread."""

    def __init__(self, home: Path):
        self._folder = home / "feedback"
        self._home = home
        self._lock = threading.Lock()
        self._unpublished: dict[Path, int] = {}
        self._run: Run | None = None
        self._running = ExitStack()

    def add(self, vote: Vote) -> Feedback | None:
        """Returns the new version of the artefact where one was due. The vote is stored either way."""
        row = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **vote.model_dump()}
        log = self._folder / f"{safe_name(vote.model)}.jsonl"
        with self._lock:
            try:
                num_votes = _append(log, json.dumps(row))
            except OSError as error:
                raise from_os_error(error) from error
            self._unpublished[log] = self._unpublished.get(log, 0) + 1
            due = num_votes <= EVERY_VOTE_UP_TO or self._unpublished[log] * 10 >= num_votes
            return self._publish(log) if due else None

    def publish_all(self) -> None:
        """Whatever is in the logs and not yet in an artefact; where all is published already, nothing happens."""
        with self._lock:
            for log in sorted(self._folder.glob("*.jsonl")):
                self._publish(log)

    def close(self) -> None:
        with self._lock:
            for log in [log for log, count in self._unpublished.items() if count]:
                self._publish(log)
            self._running.close()
            self._run = None

    def _publish(self, log: Path) -> Feedback | None:
        try:
            self._run = self._run or self._running.enter_context(Run(self._home, name="feedback"))
            with _locked(log):
                made = record_feedback(FeedbackConfig(), votes=log, run=self._run)
        except (MygptError, OSError) as error:
            logging.getLogger(__name__).warning("The votes in %s are safe, but were not published: %s", log, error)
            return None
        self._unpublished[log] = 0
        return made


def _append(log: Path, line: str) -> int:
    """One line, whole and on disk; returns the number of lines. A line that a crash cut short is ended first."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with _locked(log), open(log, "rb+") as file:
        before = file.read()
        file.write((b"" if before.endswith(b"\n") or not before else b"\n") + line.encode("ascii") + b"\n")
        file.flush()
        os.fsync(file.fileno())
        return before.count(b"\n") + 1


@contextmanager
def _locked(log: Path) -> Iterator[None]:
    """Against a second server in the same home."""
    with open(log, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
