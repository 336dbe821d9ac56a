"""What the RLHF doctor found, as one self-contained page: the findings, and every vital by rollout with the findings marked in it."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from mygpt.views import numbers
from mygpt.views.page import html
from mygpt.views.plots import Scale, running_mean, scale_over

_TONES = {"critical": "bad", "warning": "fair", "notice": "plain"}
_VITALS = (  # name, heading, what it is
    ("reward", "Reward", "mean of what is trained on"),
    ("held_out_reward", "Held-out reward", "mean of a reward that is not trained on"),
    ("win_rate", "Win rate", "against the start, on fixed prompts"),
    ("reward_disagreement", "Disagreement", "standard deviation over an ensemble of rewards"),
    ("kl", "KL from the reference", "nats a sequence"),
    ("kl_coefficient", "KL coefficient", "what a nat costs"),
    ("entropy", "Entropy", "nats a token"),
    ("duplicate_share", "Duplicates", "share of answers that repeat one"),
    ("length", "Length", "tokens of an answer"),
    ("reward_per_token", "Reward a token", "slope of reward on length"),
    ("finished_share", "Finished", "share of answers that end by themselves"),
    ("value_explained", "Value explained", "share of the returns' variance"),
    ("reward_std", "Spread of the reward", "standard deviation over answers"),
    ("flat_share", "Flat prompts", "share whose answers all earn the same"),
    ("clip_share", "Clipped", "share of tokens"),
    ("answer_clip_share", "Clipped answers", "share of answers"),
    ("ratio_max", "Largest ratio", "new to old policy"),
    ("approx_kl", "KL of an update", "nats a token"),
    ("grad_norm", "Gradient norm", "before clipping"),
)


def render(figures: Mapping[str, Any]) -> str:
    findings = [
        {**found, "number": number, "tone": _TONES[found["severity"]], "advice": _with_code(found["advice"])}
        for number, found in enumerate(sorted(figures["findings"], key=lambda found: (found["since"], found["seen_at"])), 1)
    ]
    vitals = figures["vitals"]
    return html(
        "doctor_page.html.jinja",
        styles=("report_page.css", "doctor_page.css"),
        f=figures,
        findings=findings,
        headline=_headline(findings, len(vitals)),
        charts=[chart for name, title, unit in _VITALS if (chart := _chart(name, title, unit, vitals, findings))],
    )


def _headline(findings: Sequence[Mapping[str, Any]], num_rollouts: int) -> str:
    if not findings:
        return f"No fault in {num_rollouts} rollouts"
    names = list(dict.fromkeys(found["title"] for found in findings))
    told = [names[0], *(name if name.startswith("KL") else name[0].lower() + name[1:] for name in names[1:])]
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"


def _chart(
    name: str, title: str, unit: str, vitals: Sequence[Mapping[str, Any]], findings: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    points = [(float(row["rollout"]), float(row[name])) for row in vitals if row.get(name) is not None]
    if len(points) < 2:
        return None
    own = [found for found in findings if name in found["related"]]
    across = Scale(points[0][0], points[-1][0])
    last = points[-1][1]
    return {"title": title, "unit": unit, "last": numbers.decimal(last, _digits(last)), "plot": _plot(points, across, own, title)}


def _plot(points: Sequence[tuple[float, float]], across: Scale, own: Sequence[Mapping[str, Any]], title: str) -> Markup:
    ys = [y for _, y in points]
    up = scale_over(ys, including=min(ys))
    ticks = up.ticks(3)
    gridlines = "".join(f'<line class="grid" x1="0" x2="100%" y1="{y}%" y2="{y}%"/>' for y in (100 - up.percent(t) for t in ticks))
    marks, badges, taken = "", "", -100.0
    for found in own:
        x = across.percent(found["since"])
        marks += f'<line class="since {found["tone"]}" x1="{x}%" x2="{x}%" y1="0" y2="100%"/>'
        taken = max(x, taken + 7)  # one beside the other where two begin together
        badges += f'<b class="badge-{found["tone"]}" style="left:{taken:.2f}%">{found["number"]}</b>'
    lines = ""
    for css, line in (("raw", ys), ("smooth", running_mean(ys, max(1, len(ys) // 20)))):
        corners = " ".join(f"{across.percent(x)},{100 - up.percent(y):.3f}" for (x, _), y in zip(points, line, strict=True))
        lines += f'<polyline class="{css}" points="{corners}"/>'
    y_labels = "".join(f'<span style="top:{100 - up.percent(t):.2f}%">{_tick(t)}</span>' for t in ticks)
    x_labels = "".join(f'<span style="left:{across.percent(t)}%">{t:g}</span>' for t in across.ticks(4) if t == int(t))
    area = f'<svg>{gridlines}{marks}</svg><svg viewBox="0 0 100 100" preserveAspectRatio="none">{lines}</svg>{badges}'
    return Markup(
        f'<div class="chart" role="img" aria-label="{escape(title)} by rollout"><div class="y">{y_labels}</div>'
        f'<div class="area">{area}</div><div class="x">{x_labels}</div></div>'
    )


def _with_code(text: str) -> Markup:
    """What stands between backticks, as code."""
    parts = [Markup("<code>{}</code>").format(part) if odd % 2 else escape(part) for odd, part in enumerate(text.split("`"))]
    return Markup("").join(parts)


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _digits(value: float) -> int:
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 or value == 0 else 4
