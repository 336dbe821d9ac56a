"""Scenarios by metrics as one self-contained page: a table whose cells are shaded by how good they are within their column."""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mygpt.views import numbers

_COLUMNS = (  # name, heading, whether more is better, digits
    ("calibration", "calibration error", False, 3),
    ("robustness", "with typing errors", True, 3),
    ("fairness", "gap between slices", False, 3),
    ("toxicity", "toxicity", False, 3),
    ("tokens_per_item", "tokens an item", False, 0),
    ("seconds_per_item", "seconds an item", False, 2),
)


def write_scenarios(folder: Path, figures: Mapping[str, Any], page: str) -> None:
    """The payload of a Report."""
    (folder / "report.json").write_text(json.dumps(figures, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page, encoding="utf-8")


def render(figures: Mapping[str, Any]) -> str:
    folder = resources.files("mygpt.views")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(decimal=numbers.decimal)
    template = environment.from_string((folder / "scenario_page.html.jinja").read_text(encoding="utf-8"))
    rows = figures["scenarios"]
    shown = [
        {
            **row,
            "cells": [
                _cell(rows, row, name, better if name != "robustness" else row["higher_is_better"], d) for name, _, better, d in _COLUMNS
            ],
        }
        for row in rows
    ]
    css = Markup((folder / "report_page.css").read_text(encoding="utf-8"))
    return template.render(f=figures, rows=shown, headings=[heading for _, heading, _, _ in _COLUMNS], css=css)


def _cell(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any], name: str, higher_is_better: bool, digits: int) -> dict[str, Any]:
    """`good`: 0 (worst of the column) to 100 (best); None where nothing was measured or all are equal."""
    value = row[name]
    known = [other[name] for other in rows if other[name] is not None]
    if value is None or max(known) == min(known):
        return {"text": "" if value is None else numbers.decimal(value, digits), "good": None}
    share = (value - min(known)) / (max(known) - min(known))
    return {"text": numbers.decimal(value, digits), "good": round(100 * (share if higher_is_better else 1 - share))}
