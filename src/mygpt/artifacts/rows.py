"""Rows of a data set's file, with errors that name file, row and field. JSON lines, JSON, CSV, TSV, Parquet; also gzipped."""

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt.core.errors import UsageError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Row:
    """One row: `row.text("question")` raises UsageError where the field is missing or empty."""

    values: Mapping[str, Any]
    file: Path
    number: int  # from 1

    @property
    def place(self) -> str:
        return f"{self.file}, row {self.number}"

    def get(self, field: str) -> Any:
        if field not in self.values or self.values[field] is None:
            known = ", ".join(f"`{name}`" for name in list(self.values)[:12])
            raise UsageError(f"{self.place}: the field `{field}` is missing.", fix=f"It has: {known or 'nothing'}.")
        return self.values[field]

    def text(self, field: str) -> str:
        value = self.get(field)
        if isinstance(value, (Mapping, list)) or not str(value).strip():
            raise UsageError(f"{self.place}: the field `{field}` is {_short(value)}, not a text.", fix="Give it a text.")
        return str(value).strip()

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of texts; a text that looks like a JSON list is one (CSV has no lists)."""
        value = self.get(field)
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except ValueError as error:
                raise UsageError(f"{self.place}: the field `{field}` is no JSON list: {error}.", fix='Write `["one", "two"]`.') from error
        if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(v, (str, int, float)) for v in value):
            raise UsageError(f"{self.place}: the field `{field}` is {_short(value)}, not a list of texts.", fix='Write `["one", "two"]`.')
        return tuple(str(v).strip() for v in value)

    def mapping(self, field: str) -> "Row":
        """A field that holds fields."""
        value = self.get(field)
        if not isinstance(value, Mapping):
            raise UsageError(f"{self.place}: the field `{field}` is {_short(value)}, not an object.", fix="See the task's columns.")
        return Row(value, self.file, self.number)

    def slice(self, *fields: str, otherwise: str = "") -> dict[str, str]:
        """The fact `slice`, which part of the set a row is of: a column of that name, else the first of `fields`, else `otherwise`."""
        found = next((self.values[name] for name in ("slice", *fields) if self.values.get(name)), otherwise)
        return {"slice": str(found)} if found and isinstance(found, (str, int)) else {}

    def index(self, field: str, of: Sequence[str]) -> int:
        """Which of `of` the field names: by number from 0, or by text. A boolean is no (0) or yes (1)."""
        value = self.get(field)
        text = str(value).strip()
        if isinstance(value, bool):
            return int(value)
        if text in of:
            return list(of).index(text)
        if text.isdecimal() and int(text) < len(of):
            return int(text)
        raise UsageError(
            f"{self.place}: the field `{field}` is {_short(value)}, which is none of the {len(of)} choices.",
            fix=f"Write the number of a choice from 0 to {len(of) - 1}, or its text.",
        )


def read_rows(file: Path) -> list[Row]:
    """Raises UsageError for a file that is not there, is empty, or does not parse: it names the row."""
    name = file.name.removesuffix(".gz")
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{file} is no data file that can be read.", fix=f"Give one of: {', '.join(SUFFIXES)} (also with .gz).")
    try:
        values = _parquet(file) if suffix == ".parquet" else _parsed(file, suffix)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}.", fix="Check the path and that it is UTF-8.") from error
    rows = [Row(value, file, number) for number, value in enumerate(values, start=1)]
    if not rows:
        raise UsageError(f"{file} has no rows.", fix="Give a file with rows.")
    return rows


def _parsed(file: Path, suffix: str) -> Iterator[Mapping[str, Any]]:
    text = (gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()).decode("utf-8-sig")
    if suffix in (".csv", ".tsv"):
        return _table(file, text, "," if suffix == ".csv" else "\t")
    if suffix == ".json":
        return _json(file, text)
    return _json_lines(file, text)


def _json_lines(file: Path, text: str) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: JSON texts may hold U+2028
        if line.strip():
            yield _object(file, number, line)


def _object(file: Path, number: int, line: str) -> Mapping[str, Any]:
    fix = "Each line is one JSON object."
    try:
        value = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{file}, row {number} is no JSON: {error}.", fix=fix) from error
    if not isinstance(value, dict):
        raise UsageError(f"{file}, row {number} is {_short(value)}, not an object.", fix=fix)
    return value


def _json(file: Path, text: str) -> Iterator[Mapping[str, Any]]:
    """A list of objects, or an object with one such list in it (`data`, `examples`, `rows`)."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{file} is no JSON: {error}.", fix="Check the file, or name it `.jsonl` if each line is an object.") from error
    if isinstance(value, dict):
        value = next((v for k, v in value.items() if k in ("data", "examples", "rows")), None)
    if not isinstance(value, list):
        raise UsageError(f"{file} holds no list of objects.", fix="Give a list, or an object whose `data` is one.")
    for number, one in enumerate(value, start=1):
        if not isinstance(one, dict):
            raise UsageError(f"{file}, row {number} is {_short(one)}, not an object.", fix="Give a list of objects.")
        yield one


def _table(file: Path, text: str, delimiter: str) -> Iterator[Mapping[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="", restval=None)
    for number, row in enumerate(reader, start=1):
        if "" in row:
            raise UsageError(f"{file}, row {number} has more cells than the header.", fix="Quote cells that hold the delimiter.")
        yield row


def _parquet(file: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow.lib as arrow
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except arrow.ArrowInvalid as error:
        raise UsageError(f"{file} is no Parquet file: {error}.", fix="Check the file.") from error
    return iter(table.to_pylist())


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
