"""Judged pairs and people's ratings on one page: win rates, what speaks against them, agreement, and a ranking of all systems.

For each Predictions of `judge_pairs`: the figures of `judge_summary.summarise`, and with ratings of the same answers kappa and the
corrected win rate. Then all systems on one scale, by the judge and by people apart: Bradley-Terry strengths with intervals, clusters being
prompts, as they are and at equal style (length and markdown taken out); Elo beside them for display only, since it depends on the order.

Source: Bradley and Terry 1952; Elo 1978; Zheng et al. 2023, arXiv:2306.05685; style: see
        `metrics/style_controlled`; the rest: `judge_summary`.
We differ: a pair on which the judge's two orders disagree is a tie, half a win for each.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pydantic import Field

from mygpt.artifacts.ratings import Ratings
from mygpt.artifacts.recipe import publish, recipe, safe_name
from mygpt.artifacts.report import Predictions, Report, lineage_rows, write_report
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.judge_summary import PairSummary, agreement_with_people, styles_of, summarise
from mygpt.evaluate.same_items import model_name
from mygpt.metrics.bootstrap import interval_is_reliable
from mygpt.metrics.bradley_terry import Comparison, bradley_terry_intervals
from mygpt.metrics.elo import elo
from mygpt.metrics.style_controlled import Styles, style_controlled, style_of
from mygpt.views.judge_page import render

_OUTCOMES = {"first": 1.0, "tie": 0.5, "second": 0.0}


class JudgeReportConfig(Config):
    num_resamples: int = 10_000
    names: dict[str, str] = Field(default_factory=dict)  # what the ratings call a system, by its name here; default: the same


@recipe
def judge_report(config: JudgeReportConfig, *, predictions: tuple[Predictions, ...], ratings: Ratings | None = None, run: Run) -> Report:
    """`predictions` of `judge_pairs` or `graded_pairs`; `ratings` of the same answers, by people."""
    seed = run.seed_for("bootstrap")
    progress = run.progress(len(predictions), "judged pairs")
    pairs, judged = [], []
    for one in predictions:
        first, second = (model_name(one.manifest.facts.get(side), one.store) for side in ("first", "second"))
        if first == second:
            raise UsageError(f"Both sides of {one.id} are called `{first}`.", fix="Judge two models that can be told apart by name.")
        summary = summarise(one, num_resamples=config.num_resamples, seed=seed)
        people = None
        if ratings is not None:
            rated = [config.names.get(name, name) for name in (first, second)]
            people = asdict(agreement_with_people(one, ratings, first=rated[0], second=rated[1]))
        pairs.append({"predictions": one.id, "first": first, "second": second, **_figures(summary), "people": people})
        judged += judged_comparisons(one, first, second)
        progress.advance()
    rankings = [ranking("the judge", judged, config.num_resamples, seed)]
    if ratings is not None:
        rankings.append(ranking("people", rated_comparisons(ratings), config.num_resamples, seed))
    inputs = [*(("judged pairs", p) for p in predictions), *([("ratings", ratings)] if ratings is not None else [])]
    figures = {
        "kind": "judge_report",
        "name": safe_name(run.name),
        "measured": max(artifact.manifest.created for _, artifact in inputs)[:10],
        "pairs": pairs,
        "rankings": rankings,
        "lineage": lineage_rows(inputs),
    }
    facts = {"pairs": len(pairs), "sentences": [sentence(pair) for pair in pairs]}
    return publish(Report, run, lambda folder: write_report(folder, figures, render(figures)), facts=facts)


def judged_comparisons(judged: Predictions, first: str, second: str) -> list[tuple[Comparison, Styles]]:
    """Of the verdicts that were read, in the order of the items."""
    return [
        (Comparison(first, second, _OUTCOMES[row["winner"]], cluster=row["cluster"]), styles_of(row))
        for row in judged.rows
        if row["parsed"]
    ]


def rated_comparisons(ratings: Ratings) -> list[tuple[Comparison, Styles]]:
    """Of every rater, in the order in which they rated."""
    found = []
    for rating in sorted(ratings.rows, key=lambda rating: rating.created):
        styles = {answer.system: style_of(answer.text) for answer in rating.answers}
        for one, other, value in rating.comparisons:
            found.append((Comparison(one, other, value, cluster=rating.item_id), (styles[one], styles[other])))
    return found


def ranking(by: str, compared: Sequence[tuple[Comparison, Styles]], num_resamples: int, seed: int) -> dict[str, Any]:
    """Systems, strongest first."""
    comparisons, draws = [comparison for comparison, _ in compared], min(num_resamples, 1_000)
    try:
        strengths = bradley_terry_intervals(comparisons, num_resamples=draws, seed=seed)
        at_equal_style = style_controlled(comparisons, [styles for _, styles in compared], num_resamples=draws, seed=seed)
    except ValueError as error:
        fix = "Judge or rate pairs that link all systems, or make one report for each group."
        raise UsageError(f"What {by} said gives no ranking: {error}.", fix=fix) from error
    num_prompts, points = len({c.cluster for c in comparisons}), elo(comparisons)
    rows = [
        {
            "system": name,
            "strength": asdict(strengths[name]),
            "at_equal_style": asdict(at_equal_style.strengths[name]),
            "elo": points[name],
        }
        for name in strengths
    ]
    counts = {"comparisons": len(comparisons), "prompts": num_prompts, "reliable": interval_is_reliable(num_prompts)}
    effects = {feature: asdict(effect) for feature, effect in at_equal_style.effects.items()}
    return {"by": by, **counts, "systems": rows, "style_effects": effects}


def sentence(pair: dict[str, Any]) -> str:
    rate, people = pair["win_rate"], pair["people"]
    said = f"{pair['first']} against {pair['second']}: win rate {rate['estimate']:.3f} ({rate['low']:.3f} to {rate['high']:.3f})"
    said += "" if pair["reliable"] else ", interval unreliable"
    said += f"; at equal style {pair['style_controlled']['win_rate']['estimate']:.3f}"
    if people is not None:
        mean = people["win_rate"]["mean"]
        kappa = "not defined" if people["kappa"] is None else f"{people['kappa']:.2f}"
        said += f"; corrected by people {mean['estimate']:.3f} ({mean['low']:.3f} to {mean['high']:.3f}), kappa {kappa}"
    return f"{said}; {pair['num_unparsed']} of {pair['num_items']} verdicts could not be read."


def _figures(summary: PairSummary) -> dict[str, Any]:
    return {**asdict(summary), "counted_win_rate": summary.counted_win_rate, "reliable": summary.reliable}
