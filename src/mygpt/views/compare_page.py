"""A comparison of models as one self-contained page: dumbbells, a heat map, every difference with its interval, calibration, items, cost.

The figures are those of report.json; each task links to its items on the same page.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mygpt.views import numbers, plots
from mygpt.views.comparison_plots import dumbbell, heat, reliability_diagram
from mygpt.views.page import html

MOST_ITEMS_SHOWN = 400  # of one task; report.json has all
_COLOURS = 6
_TONES = {"better": "good", "worse": "bad"}


def render(figures: Mapping[str, Any]) -> str:
    colours = {model["label"]: f"m{number % _COLOURS}" for number, model in enumerate(figures["models"])}
    return html(
        "compare_page.html.jinja",
        styles=("report_page.css", "compare_page.css"),
        f=figures,
        tone=_tone(figures["tasks"]),
        colours=colours,
        tasks=[_task(number, task, figures) for number, task in enumerate(figures["tasks"])],
        plots=_plots(figures["tasks"], figures["baseline"], colours),
        most_items=MOST_ITEMS_SHOWN,
        costs=_costs(figures["models"]),
    )


def digits_for(metric: str) -> int:
    return 3 if "bits" in metric or "perplexity" in metric else 2


def _tone(tasks: Sequence[Mapping[str, Any]]) -> str:
    words = {m["difference"]["verdict"] for task in tasks for m in task["models"] if m["difference"]}
    if "worse" in words:
        return "fair" if "better" in words else "bad"
    return "good" if "better" in words else "plain"


def _task(number: int, task: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, Any]:
    sign = 1 if task["higher_is_better"] else -1
    shown = {model["label"]: model for model in task["models"]}
    before = shown.get(figures["baseline"])
    cells = []
    for model in figures["models"]:
        own = shown.get(model["label"])
        change = own["difference"]["estimate"] if own and own["difference"] else None
        full = 0.2 if _is_share(task) else 0.1 * abs(before["score"]["estimate"]) if before and before["score"]["estimate"] else 1.0
        cells.append({"model": own, "change": change, "style": heat(None if change is None else sign * change, full)})
    reliability = [
        {
            "label": model["label"],
            "ece": model["reliability"]["ece"],
            "brier": model["reliability"]["brier"],
            "plot": reliability_diagram(
                model["reliability"]["bins"],
                css=f"m{[m['label'] for m in figures['models']].index(model['label']) % _COLOURS}",
                title=f"{model['label']} on {task['task']}: expected calibration error {model['reliability']['ece']:.3f}",
            ),
        }
        for model in task["models"]
        if model["reliability"]
    ]
    return {**task, "anchor": f"task-{number + 1}", "cells": cells, "calibration": reliability, "digits": digits_for(task["metric"])}


def _is_share(task: Mapping[str, Any]) -> bool:
    """All of its scores lie between 0 and 1, and more is better: they share one scale."""
    return bool(task["higher_is_better"]) and all(0 <= m["score"]["estimate"] <= 1 for m in task["models"])


def _plots(tasks: Sequence[Mapping[str, Any]], baseline: str, colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """Shares on one scale, every other metric on its own."""
    groups: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for number, task in enumerate(tasks):
        groups.setdefault("share" if _is_share(task) else task["metric"], []).append((number, task))
    return [made for name, group in groups.items() if (made := _plot(name, group, baseline, colours))["rows"]]


def _plot(name: str, group: Sequence[tuple[int, Mapping[str, Any]]], baseline: str, colours: Mapping[str, str]) -> dict[str, Any]:
    values = [v for _, task in group for m in task["models"] for v in m["score"].values() if v is not None]
    share = name == "share"
    scale = plots.Scale(0.0, 1.0) if share else plots.scale_over(values, including=min(values))
    digits, rows = (2 if share else digits_for(name)), []
    for number, task in group:
        before = next((m["score"]["estimate"] for m in task["models"] if m["label"] == baseline), 0.0)
        compared = [m for m in task["models"] if m["difference"]]  # with the baseline: none where it was not measured
        for place, model in enumerate(compared):
            score, found, css = model["score"], model["difference"], colours[model["label"]]
            title = (
                f"{task['task']}, {task['metric']}: {baseline} {numbers.decimal(before, digits)}, "
                f"{model['label']} {numbers.decimal(score['estimate'], digits)}"
            )
            rows.append(
                {
                    "task": task["task"] if place == 0 else "",
                    "anchor": f"task-{number + 1}",
                    "model": model["label"] if len(colours) > 2 else "",
                    "metric": task["metric"] if place == 0 else "",
                    "mark": dumbbell(before, score["estimate"], score["low"], score["high"], scale, css=css, title=title),
                    "value": numbers.signed(found["estimate"], digits),
                    "tone": _TONES.get(found["verdict"], "plain"),
                    "verdict": found["verdict"],
                }
            )
    title = "Share of items right, or the like" if share else name.replace("_", " ")
    direction = "more is better" if group[0][1]["higher_is_better"] else "less is better"
    return {"title": title, "direction": direction, "rows": rows, "axis": plots.axis(scale, digits=1 if share else digits)}


def _costs(models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """With the width of a bar for the seconds."""
    most = max((model["cost"]["seconds"] or 0 for model in models), default=0)
    return [
        {
            **model,
            "width": round(100 * (model["cost"]["seconds"] or 0) / most, 1) if most else 0,
            "seconds_per_item": model["cost"]["seconds"] / model["items"] if model["cost"]["seconds"] and model["items"] else None,
        }
        for model in models
    ]
