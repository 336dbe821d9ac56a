"""Predictions: what a completer answered, item by item. Report: the figures and the verdict, and one HTML page.

Payload  Predictions  predictions.parquet: one row per item: item_id, set, passage, question, reference, answer, ... + one column per metric
         Report       report.json (the figures), report.html (self-contained)
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from mygpt.artifacts.artifact import Artifact


@dataclass(frozen=True)
class Predictions(Artifact):
    kind: ClassVar[str] = "predictions"

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.payload / "predictions.parquet").to_pylist()
        return rows


def write_predictions(folder: Path, rows: list[dict[str, Any]]) -> None:
    columns = dict.fromkeys(name for row in rows for name in row)  # from_pylist would take those of the first row only
    table = pa.table({name: [row.get(name) for row in rows] for name in columns})
    pq.write_table(table, folder / "predictions.parquet", compression="zstd")


@dataclass(frozen=True)
class Report(Artifact):
    kind: ClassVar[str] = "report"

    @cached_property
    def figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = json.loads((self.payload / "report.json").read_text(encoding="utf-8"))
        return figures

    @property
    def page(self) -> Path:
        return self.payload / "report.html"
