"""A task of your own: a folder with `task.yaml` and its data, or the YAML alone with the items written in it.

    name: tides
    version: "1"
    form: choice                  # choice, generate, continuation or rolling
    data: items.jsonl             # beside task.yaml: JSON lines, JSON, CSV, TSV or Parquet. Or `items:`, a list, in its place
    fields: {question: frage}     # where the data calls a field otherwise
    prompt: "Question: {question}\\nAnswer:"
    primary: acc

A row has `question`, and `id` (else its number); for `choice` also `choices` and `gold` (a number from 0, or the text); for `generate`
and `continuation` `references` (or one, `reference`), and `choices` where the answer is a label. Any other field is a fact that the
prompt may name.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from mygpt.artifacts.rows import Row, read_rows
from mygpt.artifacts.task import Item, TaskSettings
from mygpt.core.config import resolve
from mygpt.core.errors import UsageError

_SETTINGS_FILES = ("task.yaml", "task.yml")
_DEFAULT_PRIMARY = {"choice": "acc", "continuation": "acc", "rolling": "bits_per_byte"}
_DEFAULT_ANSWER_PRIMARY = {
    "text": "f1",
    "summary": "rouge_l",
    "number": "numeric",
    "label": "acc",
    "instructions": "prompt_strict",
    "program": "passed",
}
_OF_AN_ITEM = ("id", "question", "choices", "gold", "references", "reference")


def read_own(source: Path) -> tuple[TaskSettings, list[Item]]:
    """Raises UsageError that names file, row and field of what is missing."""
    file = _settings_file(source)
    written = _yaml(file)
    data, fields, inline = (written.pop(key, None) for key in ("data", "fields", "items"))
    for name in ("name", "version", "form"):
        if written.get(name) in (None, ""):
            raise UsageError(f"{file}: the field `{name}` is missing.", fix=f"Add `{name}: ...` to it.")
    written["version"] = str(written["version"])  # `version: 1` is a number in YAML
    kind = str(written.get("answer", "text"))
    default = _DEFAULT_PRIMARY.get(str(written["form"])) or _DEFAULT_ANSWER_PRIMARY.get(kind, "")
    settings = resolve(TaskSettings, {"primary": default, **written})
    return settings, [_item(row, settings) for row in _rows(file, source, data, inline, fields or {})]


def _rows(file: Path, source: Path, data: Any, inline: Any, fields: Any) -> list[Row]:
    if not isinstance(fields, Mapping):
        raise UsageError(f"{file}: `fields` is {fields!r}, not a mapping.", fix="Write `fields: {question: column}`.")
    if (data is None) == (inline is None):
        raise UsageError(f"{file}: exactly one of `data` and `items` says what the items are.", fix="Name a file under `data`.")
    if inline is not None:
        if not isinstance(inline, list) or not all(isinstance(one, Mapping) for one in inline):
            raise UsageError(f"{file}: `items` is no list of mappings.", fix="Write one item as `- {question: ..., references: [...]}`.")
        rows = [Row(one, file, number) for number, one in enumerate(inline, start=1)]
    else:
        if not source.is_dir():  # the data would not be part of what the task is addressed by
            raise UsageError(
                f"{file} names its data, {data}, in another file.", fix=f"Give the folder with both: `--source {file.parent}`."
            )
        beside = (source / str(data)).resolve()
        if not beside.is_relative_to(source.resolve()):
            raise UsageError(f"{file}: its data, {data}, lies outside the folder.", fix="Put it beside task.yaml.")
        rows = read_rows(beside)
    return [Row(_renamed(row, fields), row.file, row.number) for row in rows]


def _renamed(row: Row, fields: Mapping[str, str]) -> dict[str, Any]:
    """Under the names that items have; a column that took such a name away is dropped."""
    renamed = {name: row.get(column) for name, column in fields.items()}
    return {**{k: v for k, v in row.values.items() if k not in fields.values() and k not in renamed}, **renamed}


def _item(row: Row, settings: TaskSettings) -> Item:
    choices: tuple[str, ...] = ()
    gold = None
    references: tuple[str, ...] = ()
    wants_choices = settings.form == "choice" or (settings.form == "generate" and settings.answer == "label")
    if wants_choices:
        choices = row.texts("choices")
    if settings.form == "choice":
        gold = row.index("gold", choices)
    elif settings.form == "continuation" or (settings.form == "generate" and settings.answer != "instructions"):
        references = (row.text("reference"),) if "reference" in row.values and "references" not in row.values else _references(row)
    facts = {k: str(v) for k, v in row.values.items() if k not in _OF_AN_ITEM and v is not None}
    question = str(row.get("question")) if settings.form == "rolling" else row.text("question")
    return Item(str(row.values.get("id") or row.number), question, choices, gold, references, facts)


def _references(row: Row) -> tuple[str, ...]:
    value = row.get("references")
    return (row.text("references"),) if not isinstance(value, list) and not str(value).lstrip().startswith("[") else row.texts("references")


def _settings_file(source: Path) -> Path:
    if source.is_dir():
        found = [source / name for name in _SETTINGS_FILES if (source / name).is_file()]
        if not found:
            raise UsageError(f"{source} holds no task.yaml.", fix="Write one, or name a task that comes with mygpt: `--set builtin=NAME`.")
        return found[0]
    if not source.is_file():
        raise UsageError(f"There is no file or folder {source}.", fix="Check the path.")
    if source.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{source} is no task.", fix="Give a folder with a task.yaml, a YAML file, or `--set builtin=NAME`.")
    return source


def _yaml(file: Path) -> dict[str, Any]:
    try:
        written = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is no YAML: {_one_line(str(error))}.", fix="Put texts with colons or braces in quotes.") from error
    if not isinstance(written, dict):
        raise UsageError(f"{file} holds no settings.", fix="Write at least `name`, `version`, `form` and `data`.")
    return written


def _one_line(text: str) -> str:
    return " ".join(part.strip() for part in _nonempty(text.splitlines()))


def _nonempty(lines: Iterable[str]) -> Iterable[str]:
    return (line for line in lines if line.strip())
