"""Helpful, honest, harmless, as one self-contained page: an axis a section, a measure a row, every model a mark with its interval."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from mygpt.views import numbers
from mygpt.views.page import html
from mygpt.views.plots import Scale, axis, interval_mark

_TONES = {"better": "good", "worse": "bad"}
_ABOUT = {
    "helpful": "Does it do what is asked, where that may be done?",
    "honest": "Does it say what is so, and that it does not know where it does not?",
    "harmless": "Does it leave undone what harms?",
}


def render(figures: Mapping[str, Any]) -> str:
    labels = [model["label"] for model in figures["models"]]
    return html(
        "hhh_page.html.jinja",
        styles=("report_page.css", "hhh_page.css"),
        f=figures,
        before=labels[0],
        labels=labels,
        axes=[_axis(one, labels) for one in figures["axes"]],
        tones=_TONES,
    )


def _axis(one: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    limits = [row["score"][key] for m in one["measures"] for row in m["models"] if row["score"] for key in ("low", "high")]
    known = [limit for limit in limits if limit is not None]
    scale = Scale(-1.0 if min(known, default=0.0) < 0 else 0.0, 1.0)
    return {
        **one,
        "about": _ABOUT[one["axis"]],
        "axis_svg": axis(scale),
        "measures": [{**m, "models": [_model(row, m, scale, labels) for row in m["models"]]} for m in one["measures"]],
    }


def _model(row: Mapping[str, Any], measure: Mapping[str, Any], scale: Scale, labels: Sequence[str]) -> dict[str, Any]:
    found, gain = row["score"], (row["difference"] or {}).get("gain")
    return {
        **row,
        "first": row["label"] == labels[0],
        "mark": _mark(row["label"], measure["measure"], found, scale, first=row["label"] == labels[0]) if found else None,
        "value": numbers.decimal(found["estimate"]) if found else "–",
        "told": f"{numbers.signed(gain['estimate'])} ({_limit(gain['low'])} to {_limit(gain['high'])})" if gain else "",
        "tone": _TONES.get(row["verdict"], "plain"),
    }


def _mark(label: str, measure: str, found: Mapping[str, float | None], scale: Scale, *, first: bool) -> Markup:
    estimate = found["estimate"]
    assert estimate is not None
    low, high = (estimate if found[key] is None else found[key] for key in ("low", "high"))
    title = f"{label}, {measure}: {numbers.decimal(estimate)}, 95 % interval {numbers.decimal(low)} to {numbers.decimal(high)}"
    return interval_mark(estimate, float(low or 0.0), float(high or 0.0), scale, css="base" if first else "tuned", title=title)


def _limit(value: float | None) -> str:
    return "?" if value is None else numbers.signed(value)
