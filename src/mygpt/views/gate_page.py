"""The decision of a gate as one self-contained page: ship, do not ship, or need n more, and the reason for each rule.

The figures are those of report.json.
"""

from collections.abc import Mapping
from typing import Any

from mygpt.views import plots
from mygpt.views.page import html

_TONES = {"ship": "good", "do not ship": "bad", "need more items": "fair"}
_TAGS = {"holds": "good", "fails": "bad", "undecided": "wait"}


def render(figures: Mapping[str, Any]) -> str:
    return html(
        "gate_page.html.jinja",
        styles=("report_page.css", "compare_page.css"),
        f=figures,
        tone=_TONES[figures["outcome"]],
        rules=[_rule(rule) for rule in figures["rules"]],
    )


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """With its interval drawn against the line that decides."""
    interval = rule["interval"]
    made = {**rule, "tag": _TAGS[rule["outcome"]], "mark": None}
    if interval["low"] is None or interval["high"] is None:
        return made
    line = -rule["limit"] if rule["demand"] == "not_worse_by" else rule["limit"]
    values = [interval["low"], interval["high"], interval["estimate"], line]
    margin = 0.1 * (max(values) - min(values) or 1.0)
    scale = plots.scale_over([min(values) - margin, max(values) + margin], including=line)
    css = "tuned best" if rule["outcome"] == "holds" else "base"
    mark = plots.interval_mark(interval["estimate"], interval["low"], interval["high"], scale, css=css, title=rule["reason"])
    return {**made, "mark": mark, "line": plots.limit_line(scale, line), "axis": plots.axis(scale, digits=2)}
