"""A run: one stream of events (JSONL) from which progress, reports and the studio are drawn, and named seeds.

Events are dictionaries with at least `time` (Unix seconds) and `event`:
    run_started(name, seed), run_finished(seconds), run_failed(error, seconds)
    step_started(step), step_finished(step, seconds), step_cached(step, artifact)
    progress(step, done, total, unit, rate_per_second, eta_seconds, ...)
    log(step, ...numbers)        note(text)        warning(text)        published(artifact, kind, name)
"""

import contextlib
import copy
import json
import math
import os
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mygpt.core.digest import digest_text
from mygpt.core.errors import MygptError, from_os_error

Listener = Callable[[dict[str, Any]], None]


class Alone:
    """The processes of a run, when it is one. `training/distributed.Ranks` is the same for several that train together."""

    rank = 0
    count = 1

    def wait(self) -> None:
        """Until all are here."""


class Run:
    """What a recipe is handed beside its inputs: a name, a home, a seed, an event stream.

    `with Run(...) as run:` tells the stream when it begins and how it ends.
    `fresh` asks recipes to work even when the result is already in the store; `resume` asks a training to go on from its checkpoint, or
    to say why it cannot. `usd_per_hour` is what this machine costs. Of several `ranks` only the first writes events.
    """

    def __init__(
        self,
        home: Path,
        *,
        name: str,
        seed: int = 0,
        listeners: tuple[Listener, ...] = (),
        fresh: bool = False,
        resume: bool = False,
        usd_per_hour: float | None = None,
        ranks: Any = None,
    ):
        self.home = Path(home)
        self.name = name
        self.seed = seed
        self.fresh = fresh
        self.resume = resume
        self.usd_per_hour = usd_per_hour
        self.ranks: Any = ranks or Alone()
        self.making: Any = None  # the artefact under way: set by artifacts.recipe for the time of one recipe
        self.at_end = contextlib.ExitStack()  # what is undone when that recipe, or the run, is over
        self.id = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self.folder = self.home / "runs" / self.id
        self.listeners = [] if self.ranks.rank else list(listeners)
        self.counts: Counter[str] = Counter()
        self.seconds_by_step: dict[str, float] = {}
        self._stack: list[str] = []
        self._lock = threading.Lock()
        try:
            if not self.ranks.rank:
                self.folder.mkdir(parents=True, exist_ok=True)
            events = os.devnull if self.ranks.rank else self.folder / "events.jsonl"
            self._file: Any = open(events, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        except OSError as error:
            raise from_os_error(error) from error

    def __enter__(self) -> "Run":
        self._began = time.perf_counter()
        self.emit("run_started", name=self.name, seed=self.seed)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        seconds = round(time.perf_counter() - self._began, 3)
        try:
            if error is None:
                self.emit("run_finished", seconds=seconds)
            else:
                told = error.what if isinstance(error, MygptError) else f"{type(error).__name__}: {error}".removesuffix(": ")
                with contextlib.suppress(MygptError):  # a full disk: what stopped the run is the error to show
                    self.emit("run_failed", error=told, seconds=seconds)
        finally:
            self.close()

    def within(self, making: Any) -> "Run":
        """This run, seen from inside one recipe: same stream, its own counts."""
        inner = copy.copy(self)
        inner.making = making
        inner.counts = Counter()
        inner.at_end = contextlib.ExitStack()
        return inner

    def alone(self) -> "Run":
        """This run, seen by one of several ranks that does something by itself."""
        inner = copy.copy(self)
        inner.ranks = Alone()
        return inner

    # -- events ---------------------------------------------------------------------------------------------------------

    def emit(self, event: str, **fields: Any) -> None:
        record = {"time": round(time.time(), 3), "event": event, **fields}
        try:
            with self._lock:
                self._file.write(_line(record))
        except OSError as error:
            raise from_os_error(error) from error
        for listener in self.listeners:
            listener(record)

    def note(self, text: str) -> None:
        self.emit("note", text=text)

    def warn(self, text: str) -> None:
        self.emit("warning", text=text)

    def log(self, **numbers: float) -> None:
        self.emit("log", step=self.current_step, **numbers)

    def count(self, **amounts: int) -> None:
        """Add to the cost of what is being made, for example `tokens=512`."""
        self.counts.update(amounts)

    @property
    def current_step(self) -> str:
        return self._stack[-1] if self._stack else ""

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        self._stack.append(name)
        started = time.perf_counter()
        self.emit("step_started", step=name)
        outcome = {"failed": True}
        try:
            yield
            outcome = {}
        finally:
            seconds = time.perf_counter() - started
            self._stack.pop()
            self.seconds_by_step[name] = self.seconds_by_step.get(name, 0.0) + seconds
            self.emit("step_finished", step=name, seconds=round(seconds, 3), **outcome)

    def progress(self, total: int | None, unit: str) -> "Progress":
        return Progress(self, self.current_step, total, unit)

    # -- randomness -----------------------------------------------------------------------------------------------------

    def seed_for(self, stream: str) -> int:
        """A 63-bit seed for one named use, so that adding a use does not change the others."""
        return int(digest_text(f"{self.seed}/{stream}")[:16], 16) >> 1

    def random(self, stream: str) -> random.Random:
        return random.Random(self.seed_for(stream))

    def close(self) -> None:
        self.at_end.close()
        if self._file.closed:
            return
        try:
            self._file.flush()
            if not self.ranks.rank:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise from_os_error(error) from error
        finally:
            with contextlib.suppress(OSError):  # what could not be written above cannot be written by closing
                self._file.close()


def _line(record: dict[str, Any]) -> str:
    """One line of JSON; a loss that is not a number becomes null, since JSON has no other word for it."""
    try:
        return json.dumps(record, ensure_ascii=False, default=str, allow_nan=False) + "\n"
    except ValueError:
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        return json.dumps(finite, ensure_ascii=False, default=str) + "\n"


class Progress:
    """How far, how fast, how long. Emits at most five events a second, and always the last one."""

    def __init__(self, run: Run, step: str, total: int | None, unit: str):
        self.run, self.step, self.total, self.unit = run, step, total, unit
        self.done = self._done_before = 0
        self._started = time.perf_counter()
        self._last_emitted = 0.0

    def resume_at(self, done: int) -> None:
        """Some was done before this process began: it counts as done, not as speed."""
        self.done = self._done_before = done

    def advance(self, amount: int = 1, **shown: Any) -> None:
        self.done += amount
        now = time.perf_counter()
        if now - self._last_emitted < 0.2 and (self.total is None or self.done < self.total):
            return
        self._last_emitted = now
        rate = (self.done - self._done_before) / max(now - self._started, 1e-9)
        enough = self.total is not None and self.done - self._done_before >= 0.05 * self.total  # else a guess says nothing
        eta = (self.total - self.done) / rate if self.total is not None and enough and rate > 0 else None
        self.run.emit(
            "progress",
            step=self.step,
            done=self.done,
            total=self.total,
            unit=self.unit,
            rate_per_second=round(rate, 2),
            eta_seconds=None if eta is None else round(eta, 1),
            **shown,
        )
