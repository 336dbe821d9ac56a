"""Many scenarios by many metrics on one page: accuracy alone hides what a model is like to use.

accuracy      the primary metric, with an interval over clusters of items
calibration   expected calibration error of the choices' probabilities (where there are choices)
robustness    mean over items of the worse of the original and its disturbed form (where `typos` made one)
fairness      the best slice's mean less the worst's (where items have the fact `slice`)
toxicity      mean of the column `toxicity` (where something wrote one)
efficiency    tokens and seconds per item

Source: Liang et al. 2022, "Holistic evaluation of language models", arXiv:2211.09110, section 4 (the seven desiderata; robustness as the
worst case of an item; efficiency beside accuracy). ECE: Guo et al. 2017, arXiv:1706.04599.
We differ: no mean over scenarios is formed, since one would add accuracies to overlaps and bits. What was not measured is empty, never 0.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, Report
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.metrics.bootstrap import bootstrap_mean
from mygpt.metrics.calibration import equal_width_bins, expected_calibration_error

DESIDERATA = ("accuracy", "calibration", "robustness", "fairness", "toxicity", "tokens_per_item", "seconds_per_item")


class ScenariosConfig(Config):
    num_resamples: int = 10_000
    min_slice: int = 10  # items: a smaller slice's mean is noise


@recipe
def scenarios(config: ScenariosConfig, *, predictions: tuple[Predictions, ...], run: Run) -> Report:
    """Of any number of tasks and models; a disturbed form is folded into the row of the task it is a variant of."""
    from mygpt.views.scenario_page import render, write_scenarios

    rows = scenario_rows(predictions, num_resamples=config.num_resamples, min_slice=config.min_slice, seed=run.seed_for("bootstrap") >> 31)
    figures = {"name": run.name, "desiderata": list(DESIDERATA), "scenarios": rows}
    return publish(Report, run, lambda folder: write_scenarios(folder, figures, render(figures)), facts={"scenarios": len(rows)})


def scenario_rows(predictions: Sequence[Predictions], *, num_resamples: int, min_slice: int, seed: int) -> list[dict[str, Any]]:
    """One for each task and model, in the order given."""
    by_key: dict[tuple[str, str], Predictions] = {}
    for one in predictions:
        key = (str(one.manifest.facts.get("task")), _model(one))
        if "task" not in one.manifest.facts or key in by_key:
            what = "does not say which task it is of" if "task" not in one.manifest.facts else f"is the second of {key[0]} and one model"
            raise UsageError(f"{one.id} {what}.", fix="Give the harness's predictions, each task and model once.")
        by_key[key] = one
    found = []
    for (task, model), one in by_key.items():
        of = str(one.manifest.facts.get("variant_of") or "")
        if of and (of, model) in by_key:
            continue  # stands in its original's row
        variant = next((p for (_, m), p in by_key.items() if m == model and p.manifest.facts.get("variant_of") == task), None)
        found.append(_scenario(one, variant, num_resamples, min_slice, seed))
    return found


def _scenario(one: Predictions, variant: Predictions | None, num_resamples: int, min_slice: int, seed: int) -> dict[str, Any]:
    facts, rows = one.manifest.facts, one.rows
    primary = facts["primary"]
    values = [float(row[primary]) for row in rows]
    interval = bootstrap_mean(values, clusters=[row["cluster"] for row in rows], num_resamples=num_resamples, seed=seed)
    higher = bool(facts["higher_is_better"][primary])
    tokens = [
        (row.get("prompt_tokens") or 0) + (row.get("answer_tokens") or row.get("scored_tokens") or row.get("num_tokens") or 0)
        for row in rows
    ]
    seconds = one.manifest.cost.get("seconds")
    return {
        "task": facts["task"],
        "version": facts["version"],
        "model": _model(one),
        "predictions": one.id,
        "items": len(rows),
        "metric": primary,
        "higher_is_better": higher,
        "chance": facts.get("chance"),
        "unparsed": facts.get("unparsed", 0),
        "accuracy": interval.estimate,
        "accuracy_interval": [interval.low, interval.high],
        "calibration": _calibration(rows),
        "robustness": None if variant is None else _robustness(one, variant, higher),
        "fairness": _gap(rows, primary, min_slice),
        "toxicity": _mean([row.get("toxicity") for row in rows]),
        "tokens_per_item": sum(tokens) / len(rows) if any(tokens) else None,
        "seconds_per_item": None if seconds is None else seconds / len(rows),
    }


def _robustness(one: Predictions, variant: Predictions, higher: bool) -> float:
    """Liang et al. 2022: the worst over an item and its disturbed forms."""
    primary = one.manifest.facts["primary"]
    if variant.manifest.facts["version"] != one.manifest.facts["version"]:
        raise UsageError(f"{variant.id} is of another version than {one.id}.", fix="Disturb and measure the same version of the task.")
    other = {row["item_id"]: float(row[primary]) for row in variant.rows}
    if set(other) != {row["item_id"] for row in one.rows}:
        raise UsageError(f"{variant.id} has other items than {one.id}.", fix="Measure both with the same `max_items`.")
    worst = min if higher else max
    return sum(worst(float(row[primary]), other[row["item_id"]]) for row in one.rows) / len(other)


def _calibration(rows: Sequence[Mapping[str, Any]]) -> float | None:
    told = [row.get("confidence") for row in rows]
    if any(value is None for value in told) or not all("acc" in row for row in rows):
        return None
    return expected_calibration_error(equal_width_bins([float(v) for v in told if v is not None], [row["acc"] == 1.0 for row in rows]))


def _gap(rows: Sequence[Mapping[str, Any]], metric: str, min_slice: int) -> float | None:
    """None with fewer than two slices of enough items."""
    slices: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.get("slice"):
            slices[row["slice"]].append(float(row[metric]))
    means = [sum(values) / len(values) for values in slices.values() if len(values) >= min_slice]
    return max(means) - min(means) if len(means) > 1 else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _model(one: Predictions) -> str:
    """In a few words: the stored names behind the identity's digests, else its address."""
    identity = one.manifest.facts.get("model") or {}
    named = [one.store.get(str(identity[key])) for key in ("model", "adapter") if identity.get(key)]
    words = [manifest.name for manifest in named if manifest is not None]
    return " + ".join(words) or str(identity.get("name") or identity.get("address") or identity.get("engine") or "model")
