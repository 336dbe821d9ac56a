"""The child process in which files from elsewhere are parsed: `python -m mygpt.data.readers.worker`.

One JSON object per line. In: {"file", "format", "ocr"}. Out: {"alive": true} once ready and from time to time,
then {"converted"} or {"unreadable"}.
A parser that crashes, hangs or fills the memory takes only this process with it.
"""

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from mygpt.data.readers.conversion import Reading, Unreadable
from mygpt.data.readers.formats import read
from mygpt.data.readers.ocr import Tesseract

MEMORY_BYTES = 4 << 30  # of address space


def answer(request: dict[str, Any], out: IO[str]) -> None:
    def send(**message: Any) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    ocr = Tesseract(**request["ocr"]) if request["ocr"] else None
    try:
        converted = read(request["format"], Path(request["file"]), Reading(ocr, lambda: send(alive=True)))
        send(converted=asdict(converted))
    except Unreadable as unreadable:
        send(unreadable=[unreadable.reason, unreadable.detail, unreadable.fix])


def limit_memory() -> None:
    try:
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MEMORY_BYTES, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    except (ImportError, ValueError, OSError):
        return  # not on this system: the time limit remains


def serve(requests: Iterable[str], out: IO[str]) -> None:
    out.write('{"alive": true}\n')  # ready: the time to start does not count against the first file
    out.flush()
    for line in requests:
        answer(json.loads(line), out)


def main() -> None:
    limit_memory()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not look like an answer
    serve(sys.stdin, out)


if __name__ == "__main__":
    main()
