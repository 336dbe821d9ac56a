"""The before/after report as one self-contained page: no script, no request to anywhere, light and dark, fit to print.

The figures are those of report.json; texts from documents and models are escaped by the template engine.
"""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from mygpt.views import numbers, page, plots

_TONES = {
    "learnt the content": "good",
    "better than before": "good",
    "learnt the style, not the content": "fair",
    "worse than before": "bad",
}
_SETS = {
    "knowledge": ("Questions about documents it studied", "other questions on the passages it was trained on"),
    "generalisation": ("Questions about documents it never saw", "shows whether a skill was learnt, beside the facts"),
}


def render(figures: Mapping[str, Any]) -> str:
    return page.html(
        "report_page.html.jinja",
        styles=("report_page.css",),
        f=figures,
        tone="bad" if figures["verdict"]["forgetting"] == "beyond the limit" else _TONES.get(figures["verdict"]["outcome"], "plain"),
        sets=_sets(figures["sets"]),
        forgetting=_forgetting(figures["forgetting"]),
        bars=_bars(figures["dropped"]),
        curve=_curve(figures["training"]),
    )


def _sets(sets: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Both sets on one scale, so that they can be compared by eye."""
    limits = [limit for shown in sets.values() for arm in shown["arms"] for limit in arm["f1_interval"]]
    if not limits:
        return []
    scale = plots.scale_over(limits)
    return [
        {
            **shown,
            "title": _SETS[name][0],
            "subtitle": _SETS[name][1],
            "axis": plots.axis(scale),
            "rows": [{**arm, "mark": _mark(arm, scale, shown["best"])} for arm in shown["arms"]],
        }
        for name, shown in sets.items()
    ]


def _mark(arm: Mapping[str, Any], scale: plots.Scale, best: str | None) -> Markup:
    low, high = arm["f1_interval"]
    css = ("tuned" if arm["arm"].startswith("tuned") else "base") + (" best" if arm["arm"] == best else "")
    title = f"{arm['label']}: token F1 {arm['f1']:.2f}, 95 % interval {low:.2f} to {high:.2f}"
    return plots.interval_mark(arm["f1"], low, high, scale, css=css, title=title)


def _forgetting(forgetting: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if forgetting is None:
        return None
    bpb, limit = forgetting["bpb"], forgetting["max_bpb"]
    scale = plots.scale_over([bpb["low"], bpb["high"], bpb["estimate"], limit * 1.2, -limit / 2])
    estimate, low, high = (numbers.signed(bpb[key], 3) for key in ("estimate", "low", "high"))
    said = f"{estimate} bits per byte, 95 % interval {low} to {high}"
    mark = plots.interval_mark(bpb["estimate"], bpb["low"], bpb["high"], scale, css="tuned", title=said)
    return {**forgetting, "mark": mark, "limit_line": plots.limit_line(scale, limit), "axis": plots.axis(scale, digits=2)}


def _bars(dropped: Mapping[str, int]) -> list[dict[str, Any]]:
    """Reasons, most frequent first, with the width of their bars."""
    most = max(dropped.values(), default=1)
    ranked = sorted(dropped.items(), key=lambda reason: (-reason[1], reason[0]))
    return [{"reason": reason, "count": count, "width": round(100 * count / most, 1)} for reason, count in ranked]


def _curve(training: Mapping[str, Any] | None) -> Markup | None:
    points = (training or {}).get("curve") or []
    return plots.line_chart(points, title="Training loss by step") if len(points) > 1 else None
