"""Plots of a comparison, in the hand of `plots`: dumbbells (before and after on one line), a reliability diagram, the colour of a heat map.

Positions are in per cent, so that they fill any width; colours are the page's CSS classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from mygpt.views.plots import Scale, grid

_PIXELS = 200  # side of a reliability diagram
_FULL_HEAT = 0.2  # a change of twenty points has the full colour
_MOST_TINT = 42  # per cent: text on it stays easy to read


def dumbbell(before: float, after: float, low: float | None, high: float | None, scale: Scale, *, css: str, title: str) -> Markup:
    """A hollow dot for before, a full one for after with its interval, and the way between them."""
    x_before, x_after = scale.percent(before), scale.percent(after)
    start = Markup('<svg class="mark dumbbell {css}" role="img" aria-label="{title}"><title>{title}</title>{grid}').format(
        css=css, title=title, grid=grid(scale)
    )
    whisker = ""
    if low is not None and high is not None:
        whisker = f'<line class="whisker" x1="{scale.percent(low)}%" x2="{scale.percent(high)}%" y1="50%" y2="50%"/>'
    return start + Markup(
        f"{whisker}"
        f'<line class="way" x1="{x_before}%" x2="{x_after}%" y1="50%" y2="50%"/>'
        f'<circle class="before" cx="{x_before}%" cy="50%" r="5"/><circle class="after" cx="{x_after}%" cy="50%" r="5.5"/></svg>'
    )


def reliability_diagram(bins: Sequence[Mapping[str, Any]], *, css: str, title: str) -> Markup:
    """Confidence across, share right up: on the diagonal, the model means what it says. The area of a dot is its share of the items."""
    total = sum(b["count"] for b in bins)
    lines = "".join(
        f'<line class="grid" x1="{at}" x2="{at}" y1="0" y2="{_PIXELS}"/><line class="grid" x1="0" x2="{_PIXELS}" y1="{at}" y2="{at}"/>'
        for at in range(0, _PIXELS + 1, _PIXELS // 4)
    )
    dots = "".join(
        f'<circle class="bin" cx="{_PIXELS * b["confidence"]:.1f}" cy="{_PIXELS * (1 - b["right"]):.1f}"'
        f' r="{3 + 15 * (b["count"] / total) ** 0.5:.1f}"/>'
        for b in bins
    )
    return Markup('<svg class="reliability {css}" viewBox="-2 -2 204 204" role="img" aria-label="{title}"><title>{title}</title>').format(
        css=css, title=title
    ) + Markup(f'{lines}<line class="diagonal" x1="0" y1="{_PIXELS}" x2="{_PIXELS}" y2="0"/>{dots}</svg>')


def heat(gain: float | None, full: float = _FULL_HEAT) -> str:
    """A custom property for the cell's colour: its strength in per cent; above zero is better."""
    if gain is None:
        return ""
    strength = round(_MOST_TINT * min(1.0, abs(gain) / full))
    return f"--tint: var(--{'good' if gain > 0 else 'bad'}); --heat: {strength}%"
