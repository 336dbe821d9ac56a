"""Any number of models on the same items: task by task how each did, how far it is from the first one, and whether chance explains that.

The first model is the baseline. Every difference is paired over the items of its task; the p-values of the whole page are corrected
together (Holm). A difference counts as better or worse when the corrected p is below `alpha`, its interval leaves out zero, there are at
least 30 independent items, and the baseline has headroom. Shared words (ROUGE, BLEU, chrF) are shown, and never called better. `average`
adds a mean over tasks; shared words have none, nor have tasks with different metrics.

Source: Koehn 2004 (paired bootstrap); Dietterich 1998, "Approximate statistical tests for comparing supervised classification learning
algorithms" (McNemar); Holm 1979 over tasks; headroom: ours.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mygpt.artifacts.recipe import publish, recipe, safe_name
from mygpt.artifacts.report import Predictions, Report, lineage_rows, write_report
from mygpt.core.config import Config
from mygpt.core.errors import Refused, UsageError
from mygpt.core.run import Run
from mygpt.evaluate.cards import ancestors
from mygpt.evaluate.contamination import item_states
from mygpt.evaluate.paired_difference import Difference, Resampling, Score, difference, mean, score
from mygpt.evaluate.same_items import SameItems, join, model_labels
from mygpt.evaluate.task_figures import DIAGNOSTIC, PLUMBING, UNRELIABLE, as_numbers, task_figures
from mygpt.metrics.bootstrap import FEWEST_ITEMS, Interval
from mygpt.metrics.holm import holm
from mygpt.views.compare_page import render
from mygpt.views.numbers import signed

_ASIDE = {
    PLUMBING: "no headroom, plumbing only",
    DIAGNOSTIC: "shared words, diagnostic only",
    UNRELIABLE: f"interval unreliable, under {FEWEST_ITEMS} independent items",
}


class CompareConfig(Config):
    labels: tuple[str, ...] = ()  # what to call the model of each predictions, in their order; default: by identity
    num_resamples: int = 10_000
    alpha: float = 0.05
    detect: float = 0.05  # "n items show a difference of this size"
    average: bool = False  # also the mean over tasks
    num_samples: int = 3  # items shown of the best and of the worst, for each model
    confidence: str = "confidence"  # the column with the probability a model gave its own answer
    other_templates: bool = False  # also a model with another chat template than its own ancestor's: then more than the weights differ


@recipe
def compare_models(
    config: CompareConfig, *, predictions: tuple[Predictions, ...], contamination: tuple[Predictions, ...] | None = None, run: Run
) -> Report:
    """Join the predictions by task and item, compare, and write report.json and report.html. `contamination` of a task: its scores on clean
    and on dirty items are shown apart, an item being dirty where any of the checked lineages has it."""
    labels = config.labels or model_labels(predictions)
    tasks = [task.scored(task.primary) for task in join(predictions, labels)]
    models = list(dict.fromkeys(labels))
    baseline = models[0]
    refuse_incomparable(tasks, models)
    for task in tasks:
        _look_at_templates(task, allowed=config.other_templates, run=run)
    dirty = _dirty_items(tasks, contamination or ())
    resampling = Resampling(1 - config.alpha, config.num_resamples, run.seed_for("bootstrap"))
    progress = run.progress(sum(len(task.models) for task in tasks), "models on tasks")
    scores: dict[tuple[str, str], Score] = {}
    differences: dict[tuple[str, str], Difference] = {}
    for task in tasks:
        for model in task.models:
            scores[task.task, model.label] = score(task, model.label, task.primary, resampling)
            if model.label != baseline and task.of(baseline):
                differences[task.task, model.label] = difference(task, model.label, baseline, task.primary, resampling)
            progress.advance()
    tested = {json.dumps(key): d.p_value for key, d in differences.items() if not _is_overlap(_task(tasks, key[0]))}
    adjusted = {tuple(json.loads(key)): p for key, p in holm(tested).items()}
    shown = [
        task_figures(
            task,
            baseline,
            scores={m.label: scores[task.task, m.label] for m in task.models},
            differences={m.label: differences[task.task, m.label] for m in task.models if (task.task, m.label) in differences},
            adjusted={m.label: adjusted[task.task, m.label] for m in task.models if (task.task, m.label) in adjusted},
            alpha=config.alpha,
            detect=config.detect,
            num_samples=config.num_samples,
            confidence=config.confidence,
            resampling=resampling,
            dirty=dirty.get(task.task),
        )
        for task in tasks
    ]
    for task, told in zip(tasks, shown, strict=True):
        _say_other_prompts(task, told, run)
    figures = {
        "kind": "comparison",
        "name": safe_name(run.name),
        "measured": max(p.manifest.created for p in predictions)[:10],
        "baseline": baseline,
        "models": [_model_figures(label, labels, predictions) for label in models],
        **_verdict(shown, models),
        "tasks": shown,
        "average": average(tasks, models, resampling) if config.average else None,
        "alpha": config.alpha,
        "detect": config.detect,
        "settings": config.model_dump(mode="json"),
        "lineage": lineage_rows(
            [
                *((f"{label}, {p.manifest.facts['task']}", p) for label, p in zip(labels, predictions, strict=True)),
                *((str(p.manifest.facts["task"]), p) for p in contamination or ()),
            ]
        ),
    }
    facts = {"headline": figures["headline"], "tasks": [t["task"] for t in shown], "models": models}
    return publish(Report, run, lambda folder: write_report(folder, figures, render(figures)), facts=facts)


def _dirty_items(tasks: Sequence[SameItems], contamination: Sequence[Predictions]) -> dict[str, dict[str, bool | None]]:
    """By task, what its checks say of each item; tasks that were not checked are left out."""
    by_task: dict[str, list[Predictions]] = {}
    for one in contamination:
        by_task.setdefault(str(one.manifest.facts.get("of_task")), []).append(one)
    for name, own in by_task.items():
        if name not in {task.task for task in tasks}:
            known = ", ".join(task.task for task in tasks)
            raise UsageError(f"{own[0].id} is the contamination of `{name}`, which is not compared.", fix=f"Compared are: {known}.")
    return {task.task: item_states(task, by_task[task.task]) for task in tasks if task.task in by_task}


def _look_at_templates(task: SameItems, *, allowed: bool, run: Run) -> None:
    """Raises Refused where a model and its relative were asked through different chat templates; of strangers that is said."""
    first, *others = task.models
    before = first.predictions.manifest.facts.get("template")
    for model in others:
        after = model.predictions.manifest.facts.get("template")
        if not before or not after or before == after:
            continue
        what = f"On {task.task}, {model.label} was asked through the chat template {after[:12]} and {first.label} through {before[:12]}"
        if not allowed and _family(first.predictions) & _family(model.predictions):
            fix = "Ask both through one, as `mygpt serve` and tuning do; or `--set other_templates=true` compares them as two systems."
            raise Refused(f"{what}, though one comes from the other: more than the weights would differ.", fix=fix)
        run.note(f"{what}.")


def _family(predictions: Predictions) -> set[str]:
    """Digests of the models that were asked and of all that they came from, where this home has them."""
    asked = predictions.manifest.facts.get("model") or {}
    found: set[str] = set()
    for digest in filter(None, (asked.get("model"), asked.get("adapter"))):
        manifest = predictions.store.get(digest)
        found |= {digest, *(ancestors(predictions.store, manifest) if manifest else ())}
    return found


def _say_other_prompts(task: SameItems, told: Mapping[str, Any], run: Run) -> None:
    """Under one chat template other tokens are another prompt: the model is then not all that differs."""
    templates = {m.label: m.predictions.manifest.facts.get("template") for m in task.models}
    first = task.models[0].label
    for model in told["models"]:
        number, label = model["other_prompts"], model["label"]
        if number and templates[first] and templates[label] == templates[first]:
            of = f"{number} of {told['items']} items of {task.task}"
            run.warn(f"{of} reached {label} in other tokens than {first}, through one chat template: more than the model differs.")


def refuse_incomparable(tasks: Sequence[SameItems], models: Sequence[str]) -> None:
    """Two models at least, and each must share a task with the baseline."""
    if len(models) < 2:
        raise UsageError(f"There is one model to compare: {', '.join(models) or 'none'}.", fix="Name the predictions of two or more.")
    baseline = models[0]
    for label in models[1:]:
        if any(task.of(baseline) and task.of(label) for task in tasks):
            continue
        done = {name: [t for t in tasks if t.of(name)] for name in (baseline, label)}
        measured = "; ".join(f"{name}: {', '.join(f'{t.task} ({t.primary})' for t in own)}" for name, own in done.items())
        overlap = any(_is_overlap(t) for own in done.values() for t in own)
        words = " ROUGE and BLEU of different tasks say nothing about each other." if overlap else ""
        raise UsageError(f"{label} and {baseline} have no task in common ({measured}).{words}", fix="Measure both on the same task.")


def _is_overlap(task: SameItems) -> bool:
    return task.is_overlap(task.primary)


def average(tasks: Sequence[SameItems], models: Sequence[str], resampling: Resampling) -> dict[str, Any]:
    """The mean over tasks, each counting alike, of the models that did them all. Refused where tasks are not measured alike."""
    metrics = {task.task: task.primary for task in tasks}
    said = ", ".join(f"{metric} ({name})" for name, metric in metrics.items())
    if any(map(_is_overlap, tasks)) and len(tasks) > 1:
        raise UsageError(
            f"Overlap of words has no mean over different tasks: {said}.",
            fix="Leave `average` off: ROUGE and BLEU depend on how long the texts of a task are and how many references it has.",
        )
    if len({(metric, _task(tasks, name).is_higher_better(metric)) for name, metric in metrics.items()}) > 1:
        raise UsageError(f"Tasks with different metrics have no mean: {said}.", fix="Leave `average` off, or name tasks of one metric.")
    complete = [label for label in models if all(task.of(label) for task in tasks)]
    rows: list[dict[str, Any]] = [
        {"label": label, "mean": float(np.mean([mean(t, label, t.primary) for t in tasks])), "difference": None} for label in complete
    ]
    for row in rows:
        if models[0] in complete and row["label"] != models[0]:
            row["difference"] = as_numbers(_mean_difference(tasks, str(row["label"]), models[0], resampling))
    return {"metric": tasks[0].primary, "tasks": list(metrics), "models": rows}


def _mean_difference(tasks: Sequence[SameItems], label: str, baseline: str, resampling: Resampling) -> Interval:
    """Tasks are independent: the squares of their distances to the limits add up."""
    parts = [difference(t, label, baseline, t.primary, resampling).interval for t in tasks]
    middle = float(np.mean([p.estimate for p in parts]))
    below, above = (
        math.sqrt(sum(d * d for d in distances)) / len(parts)
        for distances in ([p.estimate - p.low for p in parts], [p.high - p.estimate for p in parts])
    )
    return Interval(middle, middle - below, middle + above)


# -- the whole page ---------------------------------------------------------------------------------------------------------


def _verdict(tasks: Sequence[Mapping[str, Any]], models: Sequence[str]) -> dict[str, Any]:
    """A headline and one sentence for each model, in words that claim no more than the intervals."""
    baseline, sentences, claims = models[0], [], []
    for label in models[1:]:
        tasks_by_word: dict[str, list[str]] = {"better": [], "worse": []}
        for task in tasks:
            found = next((m["difference"] for m in task["models"] if m["label"] == label), None)
            if found is not None:
                word = found["verdict"]
                tasks_by_word.setdefault(word, []).append(task["task"] + (f" ({_said(found)})" if word in ("better", "worse") else ""))
        told = [f"{_ASIDE.get(word, word)}: {', '.join(on)}" for word, on in tasks_by_word.items() if on]
        sentences.append(f"{label} against {baseline}. " + " ".join(f"{part[:1].upper()}{part[1:]}." for part in told))
        for task in tasks:
            sentences += [said for model in task["models"] if model["label"] == label for said in _asides(task, model, baseline)]
        counts = [f"{word} on {len(tasks_by_word[word])}" for word in ("better", "worse") if tasks_by_word[word]]
        claims.append(f"{label} is {' and '.join(counts)}" if counts else f"no difference is shown for {label}")
    headline = f"Against {baseline}, on {len(tasks)} task{'s' * (len(tasks) != 1)}: {'; '.join(claims)}."
    return {"headline": headline, "sentences": sentences}


def _asides(task: Mapping[str, Any], model: Mapping[str, Any], baseline: str) -> Iterator[str]:
    """What a difference rests on: answers that could not be read, and items that stand in training data."""
    both, parts = model["read_by_both"], model["contamination"]
    if both is not None:
        unread = {m["label"]: m["unparsed"] for m in task["models"]}
        gain = f"the difference is {_said(both['difference'])}" if both["difference"] else "too few to compare"
        yield (
            f"On {task['task']}, {unread[baseline]} answers of {baseline} and {unread[model['label']]} of {model['label']} could not be "
            f"read; on the {both['items']} items that both could be read on, {gain}{'' if both['reliable'] else ' (interval unreliable)'}."
        )
    if parts is not None:
        told = [
            f"{parts[name]['items']} {name}"
            + (f" ({parts[name]['score']['estimate']:.3f}" if parts[name]["score"] else " (no score")
            + (f", difference {_said(parts[name]['difference'])})" if parts[name]["difference"] else ")")
            for name in ("clean", "dirty", "undecided")
            if parts[name]["items"]
        ]
        yield f"On {task['task']}, {model['label']} on items by what is in the training data: {'; '.join(told)}."


def _said(found: Mapping[str, Any]) -> str:
    return f"{signed(found['estimate'], 3)}, {signed(found['low'], 3)} to {signed(found['high'], 3)}"


def _model_figures(label: str, labels: Sequence[str], predictions: Sequence[Predictions]) -> dict[str, Any]:
    own = [p for name, p in zip(labels, predictions, strict=True) if name == label]
    return {
        "label": label,
        "identity": own[0].manifest.facts.get("model"),
        "predictions": [p.id for p in own],
        "items": sum(len(p.rows) for p in own),
        "prompt_tokens": sum(row.get("prompt_tokens") or 0 for p in own for row in p.rows) or None,
        "cost": {key: _sum(p.manifest.cost.get(key) for p in own) for key in ("seconds", "tokens", "kwh", "usd")},
    }


def _sum(values: Iterable[float | None]) -> float | None:
    """None when nothing was recorded."""
    recorded = [value for value in values if value is not None]
    return sum(recorded) if recorded else None


def _task(tasks: Sequence[SameItems], name: str) -> SameItems:
    return next(task for task in tasks if task.task == name)
