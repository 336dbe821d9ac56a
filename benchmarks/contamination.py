"""How long it takes to look for the 1,319 items of GSM8K's test set in 100 MB of text, against plain Python.

    python -m benchmarks.contamination --json --keep

text     the shared Wikipedia, web, Shakespeare and GSM8K training files, repeated up to the size, with 20 test items planted in it
rival    a Python set of 13-word strings over a part of a tenth, with a regular expression for the words (ASCII or not, without composing);
         it must find the same items in that part
figures  seconds of ours over the whole, of both over the part, ratio = rival / ours over the part; the planted items are all found
"""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.record import arguments, finish
from mygpt.guard.overlap import NgramIndex

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
N = 13
PLANTED = 20
_WORD = re.compile(r"[^\W_]+")


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--megabytes", type=float, default=100.0)
    options = parser.parse_args()
    finish("contamination", measure(int(options.megabytes * 1e6)), options)


def measure(total_bytes: int) -> dict[str, Any]:
    items = [json.loads(line)["question"] for line in (DATA / "gsm8k_test.jsonl").read_text(encoding="utf-8").splitlines()]
    planted = items[:: len(items) // PLANTED][:PLANTED]
    documents = list(shared_documents())
    text = list(repeated(documents, planted, total_bytes))
    part = list(repeated(documents, planted, total_bytes // 10))

    seconds, found = ours(items, text)
    seconds_part, found_part = ours(items, part)
    seconds_plain, found_plain = plain(items, part)
    missed = sum(item not in found for item in planted)
    if missed or found_part != found_plain:
        raise AssertionError(f"{missed} planted items missed; on the part ours found {len(found_part)}, the rival {len(found_plain)}")
    return {
        "items": len(items),
        "megabytes": round(sum(len(one.encode()) for one in text) / 1e6, 1),
        "seconds": round(seconds, 2),
        "megabytes_per_second": round(sum(len(one.encode()) for one in text) / 1e6 / seconds, 1),
        "part_megabytes": round(sum(len(one.encode()) for one in part) / 1e6, 1),
        "seconds_part": round(seconds_part, 2),
        "seconds_part_plain_python": round(seconds_plain, 2),
        "ratio": round(seconds_plain / seconds_part, 1),
        "planted": PLANTED,
        "planted_found": PLANTED - missed,
        "dirty": len(found),
    }


def ours(items: list[str], texts: list[str]) -> tuple[float, set[str]]:
    started = time.perf_counter()
    met = NgramIndex.build(items, N).met_in(texts)
    found = {item for item in items if met.overlap(item).share > 0}
    return time.perf_counter() - started, found


def plain(items: list[str], texts: list[str]) -> tuple[float, set[str]]:
    def ngrams(text: str) -> Iterator[str]:
        words = _WORD.findall(text.lower())
        return (" ".join(words[i : i + N]) for i in range(len(words) - N + 1))

    started = time.perf_counter()
    seen = {ngram for text in texts for ngram in ngrams(text)}
    found = {item for item in items if any(ngram in seen for ngram in ngrams(item))}
    return time.perf_counter() - started, found


def shared_documents() -> Iterator[str]:
    yield from (DATA / "wiki_demo.txt").read_text(encoding="utf-8").split("\n\n")
    yield from (json.loads(line)["text"] for line in (DATA / "c4_demo.jsonl").read_text(encoding="utf-8").splitlines())
    yield (DATA / "tinyshakespeare.txt").read_text(encoding="utf-8")
    for line in (DATA / "gsm8k_train.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield f"{row['question']}\n{row['answer']}"


def repeated(documents: list[str], planted: list[str], total_bytes: int) -> Iterator[str]:
    """Documents over and over up to the size; the planted items inside documents, spread over the first round."""
    every = len(documents) // len(planted)
    size, number = 0, 0
    while size < total_bytes:
        text = documents[number % len(documents)]
        if number < len(documents) and number % every == 0 and number // every < len(planted):
            text = f"{text} {planted[number // every]} {text[:200]}"
        yield text
        size += len(text.encode())
        number += 1


if __name__ == "__main__":
    main()
