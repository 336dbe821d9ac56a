"""Judged pairs and rankings as one self-contained page; the figures are those of report.json."""

from collections.abc import Mapping
from typing import Any

from mygpt.views import plots
from mygpt.views.page import html


def render(figures: Mapping[str, Any]) -> str:
    return html(
        "judge_page.html.jinja",
        styles=("report_page.css", "scenario_page.css"),
        f=figures,
        rankings=[_ranking(one) for one in figures["rankings"]],
    )


def _ranking(one: Mapping[str, Any]) -> dict[str, Any]:
    limits = [row["strength"][key] for row in one["systems"] for key in ("low", "high")]
    scale = plots.scale_over([*limits, 0.0])
    rows = []
    for row in one["systems"]:
        strength = row["strength"]
        title = f"{row['system']}: {strength['estimate']:.2f}, 95 % interval {strength['low']:.2f} to {strength['high']:.2f}"
        mark = plots.interval_mark(strength["estimate"], strength["low"], strength["high"], scale, css="tuned", title=title)
        rows.append({**row, "mark": mark})
    return {**one, "rows": rows, "axis": plots.axis(scale)}
