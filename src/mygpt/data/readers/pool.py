"""Reads many files at once: plain text here, everything else in child processes that may be lost without harm."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mygpt
from mygpt.core.errors import MygptError
from mygpt.data.readers.conversion import Converted, Reading, Unreadable
from mygpt.data.readers.formats import Format, read
from mygpt.data.readers.ocr import PAGE_SECONDS, Tesseract

Outcome = Converted | Unreadable
_START_SECONDS = 120
_READ_AHEAD = 8  # files
_COMMAND = [sys.executable, "-P", "-m", "mygpt.data.readers.worker"]  # -P: a folder of documents is no place to import from


class ReaderPool:
    """`with ReaderPool(...) as pool: for outcome in pool.read(jobs)`. Children start when the first file needs one."""

    def __init__(self, *, workers: int, patience_seconds: float, ocr: Tesseract | None = None):
        self._patience_seconds = patience_seconds
        self._ocr = ocr
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="reader")
        self._own = threading.local()
        self._children: list[Child] = []

    def __enter__(self) -> "ReaderPool":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for child in list(self._children):
            child.stop()
        self._threads.shutdown(wait=True)
        for child in self._children:
            child.stop()  # one that was started anew meanwhile

    def read(self, jobs: Iterable[tuple[Path, Format]]) -> Iterator[Outcome]:
        """One outcome per job, in order; only a few are read ahead, so that they need not fit in memory together."""
        ahead: deque[Future[Outcome]] = deque()
        for file, form in jobs:
            ahead.append(self._threads.submit(self._read, file, form))
            if len(ahead) > _READ_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _read(self, file: Path, form: Format) -> Outcome:
        try:
            if not form.isolated:
                return read(form.name, file, Reading())
            if not hasattr(self._own, "child"):
                self._own.child = Child(self._patience_seconds)
                self._children.append(self._own.child)
            child: Child = self._own.child
            return child.read(file, form, self._ocr)
        except Unreadable as unreadable:
            return unreadable


class Child:
    """One worker process, started anew after a file that it did not survive."""

    def __init__(self, patience_seconds: float):
        self._patience_seconds = patience_seconds
        self._process: subprocess.Popen[str] | None = None

    def read(self, file: Path, form: Format, ocr: Tesseract | None) -> Converted:
        """Raises Unreadable; "corrupt" also when the child died, "too slow" when it gave no sign of life for too long."""
        process = self._process or self._start()
        request = json.dumps({"file": os.path.abspath(file), "format": form.name, "ocr": ocr.to_json() if ocr else None})
        patience_seconds = max(self._patience_seconds, 1.5 * PAGE_SECONDS if ocr else 0)
        try:
            assert process.stdin is not None
            process.stdin.write(request + "\n")
            process.stdin.flush()
            while True:
                message = self._line(process, patience_seconds)
                if "unreadable" in message:
                    raise Unreadable(*message["unreadable"])
                if "converted" in message:
                    return _converted(message["converted"])
        except (OSError, EOFError) as error:
            slow = isinstance(error, TimeoutError)
            status = "" if slow else _how_it_ended(process)
            self.stop()
            if slow:
                what = f"Its parser gave no sign of life for {patience_seconds:g} s."
                raise Unreadable("too slow", what, "Open it in its program and save it again, or split it.") from error
            raise Unreadable("corrupt", f"Its parser crashed ({status}).", "Open it in its program and save it again.") from error

    def _start(self) -> "subprocess.Popen[str]":
        package_root = str(Path(mygpt.__file__).parents[1])
        path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # so that it can be stopped together with what it started
        )
        try:
            self._line(self._process, _START_SECONDS)
        except (TimeoutError, EOFError) as error:
            self.stop()
            what = f"The process that reads documents did not start: `{' '.join(_COMMAND)}`."
            fix = "Run this command by itself to see why; `pip install 'mygpt[data]'` repairs an incomplete installation."
            raise MygptError(what, fix=fix) from error
        return self._process

    def _line(self, process: "subprocess.Popen[str]", patience_seconds: float) -> dict[str, Any]:
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            _kill(process)

        timer = threading.Timer(patience_seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            raise TimeoutError if expired.is_set() else EOFError
        message: dict[str, Any] = json.loads(line)
        return message

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _kill(process)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except OSError:
                        continue
            process.wait()


def _kill(process: "subprocess.Popen[str]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()


def _how_it_ended(process: "subprocess.Popen[str]") -> str:
    try:
        code = process.wait(5)
    except subprocess.TimeoutExpired:
        return "it closed its output"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _converted(fields: dict[str, Any]) -> Converted:
    places = tuple((start, place) for start, place in fields["places"])
    return Converted(fields["text"], fields["title"], places, tuple(fields["notes"]))
