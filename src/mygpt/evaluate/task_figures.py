"""The figures of one task for a page: scores, differences in words, the items behind them, calibration.

Source: reliability, ECE and Brier score: `metrics/calibration`, of the confidence in the answer taken.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mygpt.core.errors import UsageError
from mygpt.evaluate.contamination import apart
from mygpt.evaluate.paired_difference import Difference, Resampling, Score, difference, has_headroom, mean
from mygpt.evaluate.same_items import FEWEST_TO_COMPARE, Measured, SameItems
from mygpt.metrics.bootstrap import Interval, interval_is_reliable
from mygpt.metrics.calibration import brier_binary, equal_width_bins, expected_calibration_error

PLUMBING = "no headroom: plumbing only"
UNRELIABLE = "interval unreliable"
DIAGNOSTIC = "shared words: diagnostic only"
NOTHING_SHOWN = "no difference shown"


def task_figures(
    task: SameItems,
    baseline: str,
    *,
    scores: Mapping[str, Score],
    differences: Mapping[str, Difference],
    adjusted: Mapping[str, float],
    alpha: float,
    detect: float,
    num_samples: int,
    confidence: str,
    resampling: Resampling,
    dirty: Mapping[str, bool | None] | None = None,
) -> dict[str, Any]:
    """Of a task whose items are all scored; `scores`, `differences` from the baseline and p-values `adjusted` for the page, by model.
    `dirty`: by item, whether it stands in training data."""
    metric = task.primary
    headroom = has_headroom(task, baseline, metric) if task.of(baseline) else None
    models = []
    for model in task.models:
        found = differences.get(model.label)
        models.append(
            {
                "label": model.label,
                "predictions": model.predictions.id,
                "score": as_numbers(scores[model.label].interval),
                "method": scores[model.label].method,
                "other_metrics": {m: mean(task, model.label, m) for m in _other_metrics(task, model)},
                "unparsed": model.count("parsed", False),
                "unscored": task.unscored.get(model.label, 0),
                "cut": model.count("finish_reason", "length"),
                "other_prompts": other_prompts(model, task.models[0]),
                "reliability": reliability(task, model, confidence),
                "read_by_both": None if found is None else read_by_both(task, model.label, baseline, resampling),
                "contamination": None if dirty is None else _apart(task, model.label, baseline, dirty, resampling),
                "difference": None
                if found is None
                else {
                    **as_numbers(found.interval),
                    "p": found.p_value,
                    "p_adjusted": adjusted.get(model.label),
                    "test": found.test,
                    "won": found.won,
                    "lost": found.lost,
                    "verdict": word_for(found, adjusted.get(model.label), headroom, task.is_overlap(metric), alpha),
                    "detectable": found.detectable(level=1 - alpha),
                    "items_needed": found.needed(detect, level=1 - alpha),
                },
                "best": [] if found is None else _extremes(task, model.label, baseline, num_samples, best=True),
                "worst": [] if found is None else _extremes(task, model.label, baseline, num_samples, best=False),
            }
        )
    values = {model.label: task.values(model.label, metric).tolist() for model in task.models}
    return {
        "task": task.task,
        "version": task.version,
        "form": task.form,
        "metric": metric,
        "higher_is_better": task.is_higher_better(metric),
        "chance": task.chance,
        "items": len(task.item_ids),
        "clusters": task.num_clusters,
        "reliable": interval_is_reliable(task.num_clusters),
        "headroom": headroom,
        "overlap": task.is_overlap(metric),
        "models": models,
        "weights": task.weights(metric).tolist() if (task.weights(metric) != 1).any() else None,
        "item_scores": [[item, *(values[model.label][i] for model in task.models)] for i, item in enumerate(task.item_ids)],
    }


def read_by_both(task: SameItems, label: str, baseline: str, resampling: Resampling) -> dict[str, Any] | None:
    """The difference on the items whose answers could be read for both: what is left of it beside the form of the answers. None where
    all could be read."""
    pairs = zip(*(model.rows for name in (label, baseline) if (model := task.of(name)) is not None), strict=True)
    kept = {one["item_id"] for one, other in pairs if one.get("parsed") is not False and other.get("parsed") is not False}
    if len(kept) == len(task.item_ids):
        return None
    if len(kept) < FEWEST_TO_COMPARE:
        return {"items": len(kept), "reliable": False, "score": None, "baseline": None, "difference": None}
    part = task.keeping(kept)
    return {
        "items": len(kept),
        "reliable": interval_is_reliable(part.num_clusters),
        "score": mean(part, label, task.primary),
        "baseline": mean(part, baseline, task.primary),
        "difference": as_numbers(difference(part, label, baseline, task.primary, resampling).interval),
    }


def _apart(task: SameItems, label: str, baseline: str, dirty: Mapping[str, bool | None], resampling: Resampling) -> dict[str, Any]:
    found = apart(task, label, task.primary, dirty, resampling, baseline=baseline)
    return {
        name: {
            "items": part.num_items,
            "score": part.score and as_numbers(part.score),
            "difference": part.difference and as_numbers(part.difference),
        }
        for name, part in (("clean", found.clean), ("dirty", found.dirty), ("undecided", found.undecided))
    }


def other_prompts(model: Measured, first: Measured) -> int | None:
    """Items that reached both in different tokens; None where one tells its ids and the other (a server) only the text."""
    if model.predictions.manifest.facts.get("hashed") != first.predictions.manifest.facts.get("hashed"):
        return None
    return sum(a.get("prompt_sha256") != b.get("prompt_sha256") for a, b in zip(model.rows, first.rows, strict=True))


def word_for(found: Difference, p_adjusted: float | None, headroom: bool | None, overlap: bool, alpha: float) -> str:
    """What may be said of a difference. `overlap`: it counts shared words."""
    if overlap:
        return DIAGNOSTIC
    if not interval_is_reliable(found.num_clusters):
        return UNRELIABLE
    if headroom is False:
        return PLUMBING
    gain = found.gain
    if p_adjusted is None or p_adjusted > alpha or not (gain.above_zero or gain.below_zero):
        return NOTHING_SHOWN
    return "better" if gain.above_zero else "worse"


def _extremes(task: SameItems, label: str, baseline: str, most: int, *, best: bool) -> list[dict[str, Any]]:
    """Items with the largest gain, or loss; none that did not move. Equal ones in the order of the task."""
    metric = task.primary
    sign = 1 if task.is_higher_better(metric) == best else -1
    after_N, before_N = task.values(label, metric), task.values(baseline, metric)
    change_N = sign * (after_N - before_N)
    order = [int(i) for i in np.argsort(-change_N, kind="stable")[:most] if change_N[i] > 0]
    after, before = task.of(label), task.of(baseline)
    assert after is not None and before is not None
    return [
        {
            "item_id": after.rows[i]["item_id"],
            "question": after.rows[i].get("question"),
            "reference": after.rows[i].get("reference"),
            "before": before.rows[i].get("answer"),
            "after": after.rows[i].get("answer"),
            "score_before": float(before_N[i]),
            "score_after": float(after_N[i]),
            "change": float(after_N[i] - before_N[i]),
        }
        for i in order
    ]


def reliability(task: SameItems, model: Measured, column: str, num_bins: int = 10) -> dict[str, Any] | None:
    """How often answers given with about the same confidence were right; None where no confidence was recorded."""
    right = "acc" if all("acc" in row for row in model.rows) else task.primary  # of the choice that the confidence is about
    values_N = task.values(model.label, right)
    told = [float(value) for row in model.rows if (value := row.get(column)) is not None]
    if len(told) < len(model.rows) or not np.isin(values_N, (0.0, 1.0)).all():
        return None
    if not all(0 <= value <= 1 for value in told):
        what = f"`{column}` of {model.label} on {task.task} is no confidence: it goes from {min(told)} to {max(told)}."
        raise UsageError(what, fix="Name a column of probabilities with `--set confidence=NAME`.")
    correct = [bool(value) for value in values_N]
    bins = equal_width_bins(told, correct, num_bins=num_bins)
    return {
        "bins": [{"count": b.num_items, "confidence": b.confidence, "right": b.accuracy} for b in bins],
        "ece": expected_calibration_error(bins),
        "brier": brier_binary(told, correct),
    }


def _other_metrics(task: SameItems, model: Measured) -> list[str]:
    """Those that every item has a number for."""
    return [m for m in task.metrics if m != task.primary and all(isinstance(r.get(m), (int, float)) for r in model.rows)]


def as_numbers(interval: Interval) -> dict[str, float | None]:
    """JSON has no infinity: a limit that is not known is null."""
    named = {"estimate": interval.estimate, "low": interval.low, "high": interval.high}
    return {name: value if math.isfinite(value) else None for name, value in named.items()}
