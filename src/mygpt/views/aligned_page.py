"""An alignment as one self-contained page: before and after, the course of the training, and answers side by side."""

from collections.abc import Mapping
from typing import Any

from mygpt.views import plots
from mygpt.views.page import html

_COURSE = (
    ("reward", "Reward in training"),
    ("held_out_reward", "The reward that is only watched"),
    ("win_rate", "Better than the start, in its eyes"),
    ("kl", "KL to the start, nats an answer"),
    ("length", "Tokens of an answer"),
)


def render(figures: Mapping[str, Any]) -> str:
    gain = figures["judge_gain"]["gain"]
    tone = "good" if gain["low"] > 0 else "bad" if gain["high"] < 0 else "fair"
    arms = [(name, figures[key]) for name, key in (("The judge", "judge_gain"), ("The trained-on reward", "reward_gain"))]
    limits = [value for _, one in arms for when in ("before", "after") for value in one[when].values()]
    scale = plots.scale_over(limits, including=0.0)
    return html(
        "aligned_page.html.jinja",
        styles=("report_page.css",),
        f=figures,
        tone=tone,
        plots=[{"title": name, "rows": [_row(one[when], when, scale) for when in ("before", "after")]} for name, one in arms],
        axis=plots.axis(scale),
        course=[
            {"title": title, "chart": plots.line_chart(points, title=title)}
            for name, title in _COURSE
            if len(points := [(v["rollout"], v[name]) for v in figures["vitals"] if name in v]) > 1
        ],
    )


def _row(interval: Mapping[str, float], when: str, scale: plots.Scale) -> dict[str, Any]:
    css = "tuned best" if when == "after" else "base"
    mark = plots.interval_mark(interval["estimate"], interval["low"], interval["high"], scale, css=css, title=when)
    return {"label": when, "css": "tuned" if when == "after" else "base", "mark": mark, "value": interval["estimate"]}
