"""HellaSwag: which ending follows? Columns `activity_label`, `ctx_a`, `ctx_b`, `endings` (four), `label`; `ind` as id where there is one.
The slice is where the text comes from (`source_id`: activitynet or wikihow).

Source: Zellers et al. 2019, arXiv:1905.07830; how WikiHow's brackets are taken out and what is asked: Gao et al., Language Model
Evaluation Harness v0.4.13, hellaswag version 1.
"""

import re
from pathlib import Path

from mygpt.artifacts.rows import Row, read_rows
from mygpt.artifacts.task import Item, TaskSettings

_BRACKETED = re.compile(r"\[.*?\]")


def hellaswag(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    settings = TaskSettings(name="hellaswag", version="1", form="choice", primary="acc_norm", chance=0.25, license="MIT")
    return settings, [_item(row) for row in read_rows(source)]


def _item(row: Row) -> Item:
    endings = tuple(_cleaned(e) for e in row.texts("endings"))
    second = str(row.get("ctx_b"))  # may be empty: an activity without a second sentence begun
    begun = _cleaned(f"{row.text('activity_label')}: {row.text('ctx_a')} {second.capitalize()}")
    return Item(
        str(row.values.get("ind", row.number)),
        begun,
        choices=endings,
        gold=row.index("label", endings),
        facts={"activity": row.text("activity_label"), **row.slice(otherwise=str(row.values.get("source_id") or "").partition("~")[0])},
    )


def _cleaned(text: str) -> str:
    return _BRACKETED.sub("", text.strip().replace(" [title]", ". ")).replace("  ", " ")
