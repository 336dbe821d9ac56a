"""Entailment of answers and references, item by item, on an entailer with a table."""

from collections.abc import Sequence
from typing import Any

import pytest

from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.entailment import EntailmentConfig, entailment
from mygpt.evaluate.same_items import join
from mygpt.infer.protocols import Identity
from mygpt.metrics.entailment import Nli

ANSWERS = (
    ("oak", "An oak fell.", "A tree fell."),
    ("same", "It fell.", "It fell."),
    ("mute", " ", "A tree fell."),
    ("no", "It stood.", "It fell."),
)


class AnsweredConfig(Config):
    rows: tuple[tuple[str, str, str], ...]


@recipe
def answered(config: AnsweredConfig, *, run: Run) -> Predictions:
    rows: list[dict[str, Any]] = [
        {"item_id": i, "question": f"{i}?", "answer": a, "reference": r, "cluster": i, "f1": 0.5} for i, a, r in config.rows
    ]
    facts = {"task": "trees", "version": "1", "primary": "f1", "model": {"engine": "made up"}}
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)


class Table:
    """Alike: entailed. From oak to tree: entailed; back: perhaps. All else: no."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    @property
    def identity(self) -> Identity:
        return {"entailer": "table"}

    def entail(self, premises: Sequence[str], hypotheses: Sequence[str]) -> list[Nli]:
        self.calls.append(len(premises))
        kinds = {("An oak fell.", "A tree fell."): Nli(0.9, 0.1, 0.0), ("A tree fell.", "An oak fell."): Nli(0.2, 0.8, 0.0)}
        return [kinds.get(p, Nli(1.0, 0.0, 0.0) if p[0] == p[1] else Nli(0.0, 0.1, 0.9)) for p in zip(premises, hypotheses, strict=True)]


def test_by_hand(run: Run) -> None:
    entailer = Table()
    given: Any = answered(AnsweredConfig(rows=ANSWERS), run=run)
    made: Any = entailment(EntailmentConfig(at_once=3), predictions=given, entailer=entailer, run=run)
    found = {row["item_id"]: (row["relation"], row["mutual_entailment"]) for row in made.rows}
    assert found == {"oak": ("says more", 0.2), "same": ("same", 1.0), "mute": (None, None), "no": ("contradicts", 0.0)}
    assert entailer.calls == [2, 2, 1, 1]  # both directions; what says nothing is not asked about
    facts = made.manifest.facts
    assert facts["relations"] == {"same": 1, "says more": 1, "says less": 0, "contradicts": 1, "neither": 0}
    assert (facts["empty"], facts["items"], facts["task"], facts["primary"]) == (1, 4, "trees, entailment", "mutual_entailment")
    (joined,) = join([made, made], ["a", "b"])  # comparisons read it; an answer without a score is left out for all
    assert len(joined.scored("mutual_entailment").item_ids) == 3


def test_rows_without_a_reference_are_refused(run: Run) -> None:
    made: Any = answered(AnsweredConfig(rows=(("a", "It fell.", ""), ("b", "It fell.", "It fell."))), run=run)
    with pytest.raises(UsageError, match=r"1 of 2 rows of .* have no reference, first `a`"):
        entailment(EntailmentConfig(), predictions=made, entailer=Table(), run=run)
