"""A reward on compared answers as one self-contained page; the figures are those of report.json."""

from collections.abc import Mapping
from typing import Any

from mygpt.views import plots
from mygpt.views.comparison_plots import reliability_diagram
from mygpt.views.page import html


def render(figures: Mapping[str, Any]) -> str:
    shown = figures["pairs"] > 0
    return html(
        "reward_page.html.jinja",
        styles=("report_page.css", "compare_page.css"),
        f=figures,
        rows=_rows(figures) if shown else [],
        axis=plots.axis(_SHARES) if shown else "",
        diagram=_diagram(figures) if shown else "",
    )


_SHARES = plots.Scale(0.0, 1.0)


def _rows(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Shares of pairs, with their intervals where a model gave them."""
    low, high = figures["accuracy_interval"]
    found = [_row("this reward", figures["accuracy"], low, high, "tuned")]
    for name, title in (("longer_is_better", "… where the longer answer is better"), ("longer_is_worse", "… where it is worse")):
        part = figures["length"][name]
        if part["pairs"]:
            low, high = part["interval"]
            found.append(_row(f"{title} ({part['pairs']})", part["accuracy"], low, high, "tuned"))
    for title, key in (("the longer answer", "longer_wins"), ("the shorter answer", "shorter_wins"), ("a coin", "coin")):
        found.append(_row(title, figures[key], figures[key], figures[key], "base"))
    return found


def _row(label: str, estimate: float, low: float, high: float, css: str) -> dict[str, Any]:
    title = f"{label}: {estimate:.3f}, 95 % interval {low:.3f} to {high:.3f}" if low < high else f"{label}: {estimate:.3f}"
    return {"label": label, "value": estimate, "mark": plots.interval_mark(estimate, low, high, _SHARES, css=css, title=title)}


def _diagram(figures: Mapping[str, Any]) -> Any:
    told = "Confidence across, share right up; on the diagonal the reward means what it says."
    return reliability_diagram(figures["calibration"]["bins"], css="m1", title=told)
