"""Do answers say what their references say? Entailment in both directions, item by item, beside similarity and n-grams.

    forward    the answer as premise, the reference as hypothesis: nothing of the reference is missing or denied
    backward   the other way round: the answer claims nothing beyond the reference

The rows are those of a task whose primary metric is `mutual_entailment` by this entailer.

Source: Androutsopoulos and Malakasiotis 2010, section 1 (paraphrase as entailment in both directions); labels: Bowman et al. 2015,
arXiv:1508.05326. An answer that is empty entails nothing: it is counted, and has no score.
"""

from typing import Any

from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.core.config import Config
from mygpt.core.digest import digest_value
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.infer.entailment import Entailer
from mygpt.metrics.entailment import Nli, mutual_entailment, relation, relation_counts


class EntailmentConfig(Config):
    at_once: int = 128  # items asked between two steps of the progress


@recipe
def entailment(config: EntailmentConfig, *, predictions: Predictions, entailer: Entailer, run: Run) -> Predictions:
    """`predictions` have an answer and a reference for each item, as those of the harness do."""
    given = predictions.rows
    without = [row["item_id"] for row in given if not str(row.get("reference") or "").strip()]
    if without or not given:
        what = f"{len(without)} of {len(given)} rows of {predictions.id} have no reference, first `{(without or ['-'])[0]}`."
        raise UsageError(what, fix="Take predictions of a task with right answers.")
    progress = run.progress(len(given), "items")
    rows: list[dict[str, Any]] = []
    for start in range(0, len(given), config.at_once):
        part = given[start : start + config.at_once]
        said = [row for row in part if row["answer"].strip()]
        answers, references = [row["answer"].strip() for row in said], [row["reference"].strip() for row in said]
        found = iter(zip(entailer.entail(answers, references), entailer.entail(references, answers), strict=True))
        rows += [_row(row, *(next(found) if row["answer"].strip() else (None, None))) for row in part]
        progress.advance(len(part))
    told = predictions.manifest.facts
    facts = {
        "task": f"{told.get('task', predictions.name)}, entailment",
        "version": f"{told.get('version', '-')}/{digest_value(entailer.identity)[:8]}",  # figures of two entailers are not comparable
        "form": "entailment",
        "primary": "mutual_entailment",
        "metrics": ["mutual_entailment", "entails_reference", "entailed_by_reference"],
        "higher_is_better": {"mutual_entailment": True, "entails_reference": True, "entailed_by_reference": True},
        "chance": None,
        "model": told.get("model"),
        "items": len(rows),
        "empty": sum(row["relation"] is None for row in rows),
        "relations": relation_counts(row["relation"] for row in rows if row["relation"] is not None),
    }
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)


def _row(row: dict[str, Any], forward: Nli | None, backward: Nli | None) -> dict[str, Any]:
    kept = {name: row.get(name) for name in ("item_id", "question", "answer", "reference", "cluster")}
    if forward is None or backward is None:
        nothing = ("relation", "forward", "backward", "mutual_entailment", "entails_reference", "entailed_by_reference")
        return {**kept, **dict.fromkeys(nothing)}
    return {
        **kept,
        "relation": relation(forward, backward),
        "forward": forward.label,
        "backward": backward.label,
        "mutual_entailment": mutual_entailment(forward, backward),
        "entails_reference": forward.entailment,
        "entailed_by_reference": backward.entailment,
    }
