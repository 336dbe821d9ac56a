"""Many scenarios by many metrics on one page: accuracy alone hides what a model is like to use.

accuracy      the primary metric, with its interval; "interval unreliable" under 30 independent items
calibration   expected calibration error of the choices' probabilities (where there are choices)
robustness    mean over items of the worse of the original and its disturbed form (where `typos` made one)
fairness      the best slice's mean less the worst's (where items have the fact `slice`)
toxicity      mean over the generated answers, by `guard/toxicity` (where an embedder is given, or the rows have it already)
efficiency    tokens and seconds per item

An item without a score (null: groundedness of an answer that claims nothing) is left out of every figure of the score, and counted.

Source: Liang et al. 2022, "Holistic evaluation of language models", arXiv:2211.09110, section 4 (the seven desiderata; robustness as the
worst case of an item; efficiency beside accuracy). ECE: Guo et al. 2017, arXiv:1706.04599.
We differ: no mean over scenarios is formed, since one would add accuracies to overlaps and bits. What was not measured is empty, never 0.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, Report
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.paired_difference import Resampling, score
from mygpt.evaluate.same_items import is_of_a_task, join
from mygpt.guard.toxicity import Toxicity, ToxicityScorer
from mygpt.infer.protocols import Embedder
from mygpt.metrics.bootstrap import interval_is_reliable
from mygpt.metrics.calibration import equal_width_bins, expected_calibration_error

DESIDERATA = ("accuracy", "calibration", "robustness", "fairness", "toxicity", "tokens_per_item", "seconds_per_item")


class ScenariosConfig(Config):
    num_resamples: int = 10_000
    min_slice: int = 10  # items: a smaller slice's mean is noise


@recipe
def scenarios(config: ScenariosConfig, *, predictions: tuple[Predictions, ...], embedder: Embedder | None = None, run: Run) -> Report:
    """Of any number of tasks and models; a disturbed form is folded into the row of the task it is a variant of."""
    from mygpt.views.scenario_page import render, write_scenarios

    resampling = Resampling(num_resamples=config.num_resamples, seed=run.seed_for("bootstrap"))
    toxicity = None if embedder is None else Toxicity(embedder)
    progress = run.progress(len(predictions), "predictions")
    rows = scenario_rows(predictions, resampling, min_slice=config.min_slice, toxicity=toxicity, advance=progress.advance)
    figures = {"name": run.name, "desiderata": list(DESIDERATA), "toxicity": toxicity and toxicity.identity, "scenarios": rows}
    return publish(Report, run, lambda folder: write_scenarios(folder, figures, render(figures)), facts={"scenarios": len(rows)})


def scenario_rows(
    predictions: Sequence[Predictions],
    resampling: Resampling,
    *,
    min_slice: int,
    toxicity: ToxicityScorer | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> list[dict[str, Any]]:
    """One for each task and model, in the order given."""
    by_key: dict[tuple[str, str], Predictions] = {}
    for one in predictions:
        key = (str(one.manifest.facts.get("task")), _model(one))
        if not is_of_a_task(one.manifest.facts) or key in by_key:
            known = is_of_a_task(one.manifest.facts)
            what = f"is the second of {key[0]} and one model" if known else "does not say which task it is of, and what decides it"
            raise UsageError(f"{one.id} {what}.", fix="Give predictions of tasks, each task and model once.")
        by_key[key] = one
    found = []
    for (task, model), one in by_key.items():
        of = str(one.manifest.facts.get("variant_of") or "")
        if not (of and (of, model) in by_key):  # else it stands in its original's row
            variant = next((p for (_, m), p in by_key.items() if m == model and p.manifest.facts.get("variant_of") == task), None)
            found.append(_scenario(one, variant, resampling, min_slice, toxicity))
        advance(1)
    return found


def _scenario(
    one: Predictions, variant: Predictions | None, resampling: Resampling, min_slice: int, toxicity: ToxicityScorer | None
) -> dict[str, Any]:
    facts, rows = one.manifest.facts, one.rows
    primary, model = facts["primary"], _model(one)
    [task] = join([one], [model])
    task = task.scored(primary)
    scored = task.models[0].rows
    interval = score(task, model, primary, resampling).interval
    higher = task.is_higher_better(primary)
    tokens = [
        (row.get("prompt_tokens") or 0) + (row.get("answer_tokens") or row.get("scored_tokens") or row.get("num_tokens") or 0)
        for row in rows
    ]
    seconds = one.manifest.cost.get("seconds")
    return {
        "task": facts["task"],
        "version": facts["version"],
        "model": model,
        "predictions": one.id,
        "items": len(scored),
        "clusters": task.num_clusters,
        "reliable": interval_is_reliable(task.num_clusters),
        "unscored": len(rows) - len(scored),
        "metric": primary,
        "higher_is_better": higher,
        "chance": facts.get("chance"),
        "unparsed": sum(row.get("parsed") is False for row in rows),
        "accuracy": interval.estimate,
        "accuracy_interval": [interval.low, interval.high],
        "calibration": _calibration(rows),
        "robustness": None if variant is None else _robustness(one, variant, higher),
        "slices": (slices := _slices(scored, primary, min_slice)),
        "fairness": max(slices.values()) - min(slices.values()) if len(slices) > 1 else None,
        "toxicity": _toxicity(rows, facts.get("form"), toxicity),
        "tokens_per_item": sum(tokens) / len(rows) if any(tokens) else None,
        "seconds_per_item": None if seconds is None else seconds / len(rows),
    }


def _robustness(one: Predictions, variant: Predictions, higher: bool) -> float | None:
    """Liang et al. 2022: the worst over an item and its disturbed forms, of the items that both have a score on."""
    primary = one.manifest.facts["primary"]
    if variant.manifest.facts["version"] != one.manifest.facts["version"]:
        raise UsageError(f"{variant.id} is of another version than {one.id}.", fix="Disturb and measure the same version of the task.")
    other = {row["item_id"]: row[primary] for row in variant.rows}
    if set(other) != {row["item_id"] for row in one.rows}:
        raise UsageError(f"{variant.id} has other items than {one.id}.", fix="Measure both with the same `max_items`.")
    worst = min if higher else max
    both = [(row[primary], other[row["item_id"]]) for row in one.rows]
    return _mean([float(worst(a, b)) for a, b in both if a is not None and b is not None])


def _calibration(rows: Sequence[Mapping[str, Any]]) -> float | None:
    told = [row.get("confidence") for row in rows]
    if any(value is None for value in told) or not all("acc" in row for row in rows):
        return None
    return expected_calibration_error(equal_width_bins([float(v) for v in told if v is not None], [row["acc"] == 1.0 for row in rows]))


def _slices(rows: Sequence[Mapping[str, Any]], metric: str, min_slice: int) -> dict[str, float]:
    """The mean of each slice that has enough items."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.get("slice"):
            values[row["slice"]].append(float(row[metric]))
    return {name: sum(own) / len(own) for name, own in values.items() if len(own) >= min_slice}


def _toxicity(rows: Sequence[Mapping[str, Any]], form: str | None, toxicity: ToxicityScorer | None) -> float | None:
    """Mean over all answers: as the rows have it, else scored here where the model wrote them itself; None of a choice or a likelihood."""
    if all(row.get("toxicity") is not None for row in rows):
        return _mean([row["toxicity"] for row in rows])
    answers = [row["answer"] for row in rows if isinstance(row.get("answer"), str)]
    if toxicity is None or form != "generate" or len(answers) < len(rows):
        return None
    return float(toxicity.score(answers).mean())


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _model(one: Predictions) -> str:
    """In a few words: the stored names behind the identity's digests, else its address."""
    identity = one.manifest.facts.get("model") or {}
    named = [one.store.get(str(identity[key])) for key in ("model", "adapter") if identity.get(key)]
    words = [manifest.name for manifest in named if manifest is not None]
    return " + ".join(words) or str(identity.get("name") or identity.get("address") or identity.get("engine") or "model")
