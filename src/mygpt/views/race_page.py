"""The report of a race as one self-contained page: which to take, every contender's score and cost, and what it forgot.

The figures are those of report.json; texts from documents and models are escaped by the template engine.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from mygpt.views import numbers, page, plots

_TITLES = {
    "knowledge": ("Questions about documents that were studied", "other questions on the passages of the training rows"),
    "generalisation": ("Questions about other documents", "nothing was trained on them"),
}


def render(figures: Mapping[str, Any]) -> str:
    return page.html(
        "race_page.html.jinja",
        styles=("report_page.css", "race_page.css"),
        f=figures,
        tone=_tone(figures),
        chosen=next((c for c in figures["contenders"] if c["contender"] == figures["recommended"]), None),
        base=figures["contenders"][0],
        sets=_sets(figures),
        forgetting=_forgetting(figures),
        deciding=figures["sets"][figures["deciding_set"]],
    )


def _tone(figures: Mapping[str, Any]) -> str:
    if figures["recommended"] is None:
        return "plain"
    return "fair" if figures["recommended"] in figures["choice"]["forgot_too_much"] else "good"


def _sets(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All on one scale, so that they can be compared by eye."""
    limits = [limit for c in figures["contenders"] for shown in c["sets"].values() for limit in shown["f1_interval"]]
    scale = plots.scale_over(limits)
    return [
        {
            **shown,
            "name": name,
            "title": _TITLES[name][0],
            "subtitle": _TITLES[name][1],
            "axis": plots.axis(scale),
            "rows": [_row(c, name, shown, scale, figures) for c in figures["contenders"]],
        }
        for name, shown in figures["sets"].items()
    ]


def _row(
    contender: Mapping[str, Any], set_name: str, shown: Mapping[str, Any], scale: plots.Scale, figures: Mapping[str, Any]
) -> dict[str, Any]:
    name, arm = contender["contender"], contender["sets"][set_name]
    low, high = arm["f1_interval"]
    css = ("tuned" if contender["trained"] else "base") + (" best" if name == shown["best"] else "")
    title = f"{contender['label']}: token F1 {arm['f1']:.2f}, 95 % interval {low:.2f} to {high:.2f}"
    mark = plots.interval_mark(arm["f1"], low, high, scale, css=css, title=title)
    tag = "best" if name == shown["best"] else "keeps up" if arm["keeps_up"] else ""
    take = name == figures["recommended"] and set_name == figures["deciding_set"]
    return {**contender, **arm, "mark": mark, "tag": tag, "take": take}


def _forgetting(figures: Mapping[str, Any]) -> dict[str, Any] | None:
    lost = [c for c in figures["contenders"] if c["forgetting"]]
    if not lost:
        return None
    limit = figures["max_forgetting_bpb"]
    values: Sequence[float] = [c["forgetting"]["bpb"][key] for c in lost for key in ("low", "high", "estimate")]
    scale = plots.scale_over([*values, limit * 1.2, -limit / 2])
    return {
        "axis": plots.axis(scale, digits=2),
        "limit_line": plots.limit_line(scale, limit),
        "rows": [{**c, **c["forgetting"], "mark": _lost_mark(c, scale)} for c in lost],
    }


def _lost_mark(contender: Mapping[str, Any], scale: plots.Scale) -> Markup:
    bpb = contender["forgetting"]["bpb"]
    estimate, low, high = (numbers.signed(bpb[key], 3) for key in ("estimate", "low", "high"))
    said = f"{contender['label']}: {estimate} bits per byte, 95 % interval {low} to {high}"
    return plots.interval_mark(bpb["estimate"], bpb["low"], bpb["high"], scale, css="tuned", title=said)
