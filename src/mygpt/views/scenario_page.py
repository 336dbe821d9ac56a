"""Scenarios by metrics as one self-contained page: a table whose cells are shaded by how good they are within their column."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mygpt.views import numbers
from mygpt.views.page import html

_COLUMNS = (  # name, heading, whether more is better, digits
    ("calibration", "calibration error", False, 3),
    ("robustness", "with typing errors", True, 3),
    ("fairness", "gap between slices", False, 3),
    ("toxicity", "toxicity", False, 3),
    ("tokens_per_item", "tokens an item", False, 0),
    ("seconds_per_item", "seconds an item", False, 3),
)


def write_scenarios(folder: Path, figures: Mapping[str, Any], page: str) -> None:
    """The payload of a Report."""
    (folder / "report.json").write_text(json.dumps(figures, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page, encoding="utf-8")


def render(figures: Mapping[str, Any]) -> str:
    rows = figures["scenarios"]
    return html(
        "scenario_page.html.jinja",
        styles=("report_page.css", "scenario_page.css"),
        f=figures,
        rows=[{**row, "cells": _cells(rows, row)} for row in rows],
        headings=[heading for _, heading, _, _ in _COLUMNS],
        sliced=[row for row in rows if len(row["slices"]) > 1],
    )


def _cells(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [_cell(rows, row, name, row["higher_is_better"] if name == "robustness" else more, digits) for name, _, more, digits in _COLUMNS]


def _cell(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any], name: str, higher_is_better: bool, digits: int) -> dict[str, Any]:
    """`good`: 0 (worst of the column) to 100 (best); None where nothing was measured or all are equal."""
    value = row[name]
    known = [other[name] for other in rows if other[name] is not None]
    if value is None or max(known) == min(known):
        return {"text": "" if value is None else numbers.decimal(value, digits), "good": None}
    share = (value - min(known)) / (max(known) - min(known))
    return {"text": numbers.decimal(value, digits), "good": round(100 * (share if higher_is_better else 1 - share))}
