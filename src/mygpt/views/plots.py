"""Small plots in SVG, drawn by hand: positions in per cent, so that they fill any width and their text never shrinks.

Colours and strokes are the page's (CSS classes); everything that comes from data is escaped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Scale:
    """A stretch of numbers, mapped to 0-100 per cent of a plot's width or height."""

    low: float
    high: float

    def percent(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 3)

    def ticks(self, about: int = 5) -> list[float]:
        """Round numbers within the scale, `about` as many as asked."""
        step = _round_step((self.high - self.low) / about)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(step * n, 10) for n in range(first, last + 1)]


def scale_over(values: Sequence[float], *, including: float = 0.0) -> Scale:
    """A scale with round ends that holds all `values` and `including`."""
    low, high = min([*values, including]), max([*values, including])
    step = _round_step((high - low) / 5 or 0.2)
    return Scale(math.floor(low / step + 1e-9) * step, max(math.ceil(high / step - 1e-9), math.floor(low / step + 1e-9) + 1) * step)


def interval_mark(estimate: float, low: float, high: float, scale: Scale, *, css: str = "", title: str = "") -> Markup:
    """A dot at the estimate on a line from low to high, over the scale's grid."""
    left, dot, right = scale.percent(low), scale.percent(estimate), scale.percent(high)
    return Markup('<svg class="mark {css}" role="img" aria-label="{title}"><title>{title}</title>{grid}').format(
        css=css, title=title, grid=grid(scale)
    ) + Markup(
        f'<line class="whisker" x1="{left}%" x2="{right}%" y1="50%" y2="50%"/><circle class="dot" cx="{dot}%" cy="50%" r="5.5"/></svg>'
    )


def grid(scale: Scale) -> Markup:
    lines = [f'<line class="grid" x1="{x}%" x2="{x}%" y1="0" y2="100%"/>' for x in map(scale.percent, scale.ticks())]
    return Markup("".join(lines))


def limit_line(scale: Scale, value: float) -> Markup:
    x = scale.percent(value)
    return Markup(f'<svg class="mark over"><line class="limit" x1="{x}%" x2="{x}%" y1="0" y2="100%"/></svg>')


def axis(scale: Scale, digits: int = 1) -> Markup:
    labels = [f'<text x="{scale.percent(tick)}%" y="12">{tick:.{digits}f}</text>' for tick in scale.ticks()]
    return Markup(f'<svg class="axis" aria-hidden="true">{"".join(labels).replace("-", "−")}</svg>')


def line_chart(points: Sequence[Sequence[float]], *, title: str) -> Markup:
    """(x, y) points as measured, pale, and their running mean, strong."""
    xs, ys = [float(p[0]) for p in points], [float(p[1]) for p in points]
    across, up = Scale(min(xs), max(max(xs), min(xs) + 1)), scale_over(ys, including=min(ys))
    mean = running_mean(ys, max(1, len(ys) // 20))
    gridlines = "".join(f'<line class="grid" x1="0" x2="100%" y1="{y}%" y2="{y}%"/>' for y in (100 - up.percent(t) for t in up.ticks(4)))
    paths = ""
    for css, line in (("raw", ys), ("smooth", mean)):
        corners = " ".join(f"{across.percent(x)},{100 - up.percent(y):.3f}" for x, y in zip(xs, line, strict=True))
        paths += f'<polyline class="{css}" points="{corners}"/>'
    y_labels = "".join(f'<span style="top:{100 - up.percent(t):.2f}%">{t:g}</span>' for t in up.ticks(4))
    x_labels = "".join(f'<span style="left:{across.percent(t)}%">{t:g}</span>' for t in across.ticks(5) if t == int(t))
    area = f'<svg>{gridlines}</svg><svg viewBox="0 0 100 100" preserveAspectRatio="none">{paths}</svg>'
    return Markup(
        f'<div class="chart" role="img" aria-label="{escape(title)}">'
        f'<div class="y">{y_labels}</div><div class="area">{area}</div><div class="x">{x_labels}</div></div>'
    )


def running_mean(values: Sequence[float], reach: int) -> list[float]:
    """Each value with `reach` neighbours on either side, fewer at the ends: symmetrical, so that nothing is shifted."""
    means = []
    for i in range(len(values)):
        near = min(reach, i, len(values) - 1 - i)
        window = values[i - near : i + near + 1]
        means.append(sum(window) / len(window))
    return means


def _round_step(step: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))
