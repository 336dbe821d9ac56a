"""IFEval-form: prompts whose instructions a program checks. Columns `key`, `prompt`, `instruction_id_list`, `kwargs` (one object for each).

Source: Zhou et al. 2023, arXiv:2311.07911; the checks are `evaluate/instructions`. A row with an instruction that cannot be checked is an
error that names it: leaving it out in silence would change the set.
"""

import json
from pathlib import Path
from typing import Any

from mygpt.artifacts.rows import Row, read_rows
from mygpt.artifacts.task import INSTRUCTIONS, Item, TaskSettings
from mygpt.core.errors import UsageError
from mygpt.evaluate.instructions import follows, require_known


def ifeval(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    settings = TaskSettings(
        name="ifeval",
        version="1",
        form="generate",
        primary="prompt_strict",
        answer="instructions",
        max_tokens=512,
        license="Apache-2.0",
    )
    return settings, [_item(row) for row in read_rows(source)]


def _item(row: Row) -> Item:
    ids, arguments = row.texts("instruction_id_list"), row.get("kwargs")
    if not isinstance(arguments, list) or len(arguments) != len(ids):
        raise UsageError(f"{row.place}: the field `kwargs` does not have one object for each of {len(ids)} instructions.", fix="Add them.")
    instructions = [{"id": id, "kwargs": _given(kwargs)} for id, kwargs in zip(ids, arguments, strict=True)]
    for one in instructions:
        _try(row, one)
    return Item(str(row.values.get("key", row.number)), row.text("prompt"), facts={INSTRUCTIONS: json.dumps(instructions)})


def _given(kwargs: Any) -> dict[str, Any]:
    """Parquet fills up with nulls what an instruction has no use for."""
    return {k: v for k, v in (kwargs or {}).items() if v is not None}


def _try(row: Row, instruction: dict[str, Any]) -> None:
    """Once now, so that a missing argument names its row and not an answer later."""
    try:
        require_known(instruction["id"])
        if not instruction["id"].startswith("language:"):
            follows("An answer.", instruction["id"], instruction["kwargs"])
    except KeyError as error:
        raise UsageError(f"{row.place}: the field `kwargs` of `{instruction['id']}` lacks {error}.", fix="Give it.") from error
    except UsageError as error:
        raise UsageError(f"{row.place}: {error.what}", fix=error.fix) from error
