"""Labelled texts of a user's file (JSON lines, JSON, CSV, TSV, Parquet) as a Dataset of the schema `class`."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mygpt.artifacts.dataset import Dataset, LabelledText, row_facts, write_labelled
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.rows import read_rows
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.data.row_splits import train_and_test


class ClassesConfig(Config):
    """What the file calls its columns."""

    text: str = "text"
    pair: str = ""  # a second text, where the label is of two
    label: str = "label"
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of the texts, where no held-out file is given


@recipe
def classes(config: ClassesConfig, *, source: Path, held_out: Path | None = None, run: Run) -> Dataset:
    """Splits `train` and `test`; the labels, sorted, stand in the facts."""
    rows = _labelled(source, config)
    given = None if held_out is None else _labelled(held_out, config)
    labels = sorted({row.label for row in rows}, key=lambda label: (int(label), "") if label.isdecimal() else (-1, label))
    if len(labels) < 2:
        raise UsageError(f"{source}: all rows have the label {labels[0]!r}, so there is nothing to tell apart.", fix="Give two classes.")
    if unknown := next((row for row in given or () if row.label not in labels), None):
        raise UsageError(
            f"{held_out}: the label {unknown.label!r} (row {unknown.id}) is not in {source}.", fix="Give a row of it to train on."
        )
    order = run.random("held out")
    splits = train_and_test(rows, given, share=config.held_out_share, text_of=lambda r: (r.text, r.pair), order=order, run=run)
    _warn_of_two_labels(splits["train"], run)
    counts = {name: dict(Counter(row.label for row in split)) for name, split in splits.items()}
    if untrained := [label for label in labels if label not in counts["train"]]:
        raise UsageError(
            f"{source}: no row of the label {untrained[0]!r} is left to train on.", fix="Give more rows of it, or a held-out file."
        )
    facts = row_facts("class", splits, labels=labels, rows_by_label=counts)
    return publish(Dataset, run, lambda folder: write_labelled(folder, splits), facts=facts)


def _labelled(file: Path, config: ClassesConfig) -> list[LabelledText]:
    return [
        LabelledText(row.text(config.text), row.text(config.label), row.text(config.pair) if config.pair else "", str(row.number))
        for row in read_rows(file)
    ]


def _warn_of_two_labels(rows: Sequence[LabelledText], run: Run) -> None:
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        found[row.text, row.pair].add(row.label)
    several = [text for (text, _), labels in found.items() if len(labels) > 1]
    if several:
        run.warn(f"{len(several)} texts have more than one label, for example {several[0][:60]!r}: no classifier can be right on both.")
