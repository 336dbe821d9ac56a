"""Predictions: what a completer answered, item by item. Report: the figures and the verdict, and one HTML page.

Payload  Predictions  predictions.parquet: one row per item: item_id, set, passage, question, reference, answer, ... + one column per metric
         Report       report.json (the figures), report.html (self-contained)
"""

import json
from collections.abc import Iterable, Mapping
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


def write_report(folder: Path, figures: Mapping[str, Any], page: str) -> None:
    (folder / "report.json").write_text(json.dumps(figures, ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8")
    (folder / "report.html").write_text(page, encoding="utf-8")


def lineage_rows(artifacts: Iterable[tuple[str, Artifact]]) -> list[dict[str, str]]:
    """Every artefact that the figures rest on, with its parents, each once, and the part it plays."""
    found: dict[str, dict[str, str]] = {}
    for role, artifact in artifacts:
        parents = [(m.kind, m) for digest in artifact.manifest.parents if (m := artifact.store.get(digest)) is not None]
        for part, manifest in (*parents, (role, artifact.manifest)):
            row = {"role": part, "kind": manifest.kind, "id": manifest.id, "recipe": manifest.recipe}
            found.setdefault(manifest.digest, row)
    return list(found.values())
