"""CSV and JSON lines: rows as Markdown tables, records as paragraphs; `markdown_table` is shared with sheets and HTML."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mygpt.data.readers.conversion import Converted, Parts, Reading, Unreadable
from mygpt.data.readers.encoding import read_text

ROWS_PER_PLACE = 50
_LONGEST_CELL = 10_000_000
_TEXT_KEYS = ("text", "content", "body", "article", "document")
_TITLE_KEYS = ("title", "name", "heading", "subject")
_SHORT = 60  # characters


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a Markdown table, the first one its header. Ragged rows are filled up."""
    width = max((len(row) for row in rows), default=0)
    if width == 0:
        return ""
    lines = [_line([*row, *[""] * (width - len(row))]) for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]])


def markdown_rows(rows: Sequence[Sequence[str]], width: int) -> str:
    return "\n".join(_line([*row, *[""] * (width - len(row))]) for row in rows)


def add_table(parts: Parts, rows: Sequence[Sequence[str]], place: str, first_row: int) -> None:
    """A table in stretches of rows, so that a long one can be cited by row. Empty columns at the right are dropped."""
    width = max((max((i + 1 for i, cell in enumerate(row) if cell), default=0) for row in rows), default=0)
    rows = [row[:width] for row in rows]
    if len(rows) <= ROWS_PER_PLACE + 1:
        parts.add(markdown_table(rows), place)
        return
    for start in range(0, len(rows), ROWS_PER_PLACE):
        stretch = rows[start : start + ROWS_PER_PLACE]
        where = f"rows {first_row + start}-{first_row + start + len(stretch) - 1}"
        parts.add(markdown_table(stretch) if start == 0 else markdown_rows(stretch, width), f"{place}, {where}" if place else where)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


def read_csv(file: Path, reading: Reading) -> Converted:
    text = read_text(file)
    csv.field_size_limit(_LONGEST_CELL)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text)) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise Unreadable("corrupt", f"Not a table: {error}.", "Export it again as CSV (UTF-8).") from error
    if not rows:
        raise Unreadable("no text", "The table is empty.", "Nothing to do, or export it again.")
    usual = Counter(len(row) for row in rows).most_common(1)[0][0]
    ragged = sum(len(row) != usual for row in rows)
    parts = Parts()
    add_table(parts, rows, "", 1)
    return parts.converted(notes=(f"{ragged} of {len(rows)} rows have more or fewer cells than the others",) if ragged else ())


def _delimiter(text: str) -> str:
    """The one that cuts the first lines into the same number of cells most often (csv.Sniffer is unsure on ragged tables)."""
    head = text[:50_000].splitlines(keepends=True)[:100]

    def agreement(delimiter: str) -> tuple[int, int]:
        try:
            widths = Counter(len(row) for row in csv.reader(head, delimiter=delimiter) if row)
        except csv.Error:
            return (0, 0)
        width, times = max(widths.items(), key=lambda item: (item[0] > 1, item[1]), default=(1, 0))
        return (times if width > 1 else 0, width)

    return max(",;\t|", key=agreement)


def read_jsonl(file: Path, reading: Reading) -> Converted:
    parts = Parts()
    broken = records = 0
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip():
            continue
        records += 1
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            broken += 1
            continue
        parts.add(_record(record), f"line {number}")
    if records and broken == records:
        raise Unreadable("corrupt", f"None of its {records} lines is JSON.", "Write one JSON object per line.")
    return parts.converted(notes=(f"{broken} of {records} lines are not JSON",) if broken else ())


def _record(record: Any) -> str:
    """A record's text under its title, then its short fields; without a text field, `key: value` lines."""
    if not isinstance(record, dict):
        return _value(record)
    text_key = next((key for key in _TEXT_KEYS if isinstance(record.get(key), str) and record[key].strip()), None)
    title_key = next((key for key in _TITLE_KEYS if isinstance(record.get(key), str) and len(record[key]) <= 2 * _SHORT), None)
    if text_key is None:
        return "\n\n".join(f"{key}: {_value(value)}" for key, value in record.items() if value not in (None, "", [], {}))
    paragraphs = [f"## {' '.join(record[title_key].split())}"] if title_key else []
    paragraphs.append(record[text_key])
    rest = {key: _value(value) for key, value in record.items() if key not in (text_key, title_key) and value not in (None, "", [], {})}
    paragraphs += [f"{key}: {value}" for key, value in rest.items() if len(value) <= _SHORT]
    return "\n\n".join(paragraphs)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(str(item) for item in value)
    return json.dumps(value, ensure_ascii=False)
