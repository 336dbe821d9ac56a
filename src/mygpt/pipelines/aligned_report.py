"""The report of an alignment: held-out answers before and after, in the eyes of a judge and of the reward that was trained on.

Gains are paired over prompts. A policy whose trained-on reward rises and whose judge's does not has learnt to please the reward model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import PositiveInt

from mygpt.artifacts.artifact import Artifact
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe, safe_name
from mygpt.artifacts.report import Predictions, Report, lineage_rows, write_report
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.evaluate.forgetting import compare
from mygpt.metrics.bootstrap import bootstrap_mean, paired_bootstrap
from mygpt.metrics.wilson import wilson
from mygpt.views.aligned_page import render

_SAMPLES = 4  # of the prompts that gained most, and of those that lost most
Rows = list[dict[str, Any]]


class AlignedReportConfig(Config):
    num_resamples: PositiveInt = 10_000


@recipe
def aligned_report(
    config: AlignedReportConfig,
    *,
    judged: tuple[Predictions, ...],
    rewarded: tuple[Predictions, ...],
    general: tuple[Predictions, ...],
    policy: Adapter | Model,
    reward_model: Adapter | Model,
    judge: Adapter | Model,
    run: Run,
) -> Report:
    """Each pair of predictions: of the model as it was, and of the policy."""
    seed = run.seed_for("bootstrap")
    drawn: dict[str, Any] = {"num_resamples": config.num_resamples, "seed": seed}
    before, after = (one.rows for one in judged)
    gains = {
        "judge": _gain(before, after, "reward", **drawn),
        "reward": _gain(rewarded[0].rows, rewarded[1].rows, "reward", **drawn),
    }
    tokens, finished = (_gain(before, after, metric, **drawn) for metric in ("tokens", "finished"))
    lost = compare(general[0], general[1], **drawn)
    vitals = policy.manifest.facts["vitals"]
    held_out = {name: one.manifest.facts["held_out"] for name, one in (("reward_model", reward_model), ("judge", judge))}
    headline, sentences = told(gains, tokens, asdict(lost), vitals)
    inputs: dict[str, Artifact] = {"policy": policy, "reward model": reward_model, "judge": judge}
    inputs |= {"judged before": judged[0], "judged after": judged[1], "rewarded before": rewarded[0], "rewarded after": rewarded[1]}
    figures = {
        "name": safe_name(run.name),
        "measured": judged[1].manifest.created[:10],
        "headline": headline,
        "sentences": sentences,
        "prompts": len(before),
        "judge_gain": gains["judge"],
        "reward_gain": gains["reward"],
        "tokens": tokens,
        "finished": finished,
        "forgetting": asdict(lost),
        "reward_models": held_out,
        "vitals": vitals,
        "samples": _samples(before, after),
        "lineage": lineage_rows(inputs.items()),
    }
    facts = {"headline": headline, "sentences": sentences}
    return publish(Report, run, lambda folder: write_report(folder, figures, render(figures)), facts=facts)


def _gain(before: Rows, after: Rows, metric: str, *, num_resamples: int, seed: int) -> dict[str, Any]:
    """Means, the paired difference, and on how many prompts it rose: of those on which it moved."""
    assert [row["item_id"] for row in before] == [row["item_id"] for row in after], "one set of prompts"
    old, new = ([float(row[metric]) for row in rows] for rows in (before, after))
    given: dict[str, Any] = {"num_resamples": num_resamples, "seed": seed}
    more, less = (sum(sign * (b - a) > 0 for a, b in zip(old, new, strict=True)) for sign in (1, -1))
    share = asdict(wilson(more, more + less)) if more + less else None
    return {
        "before": asdict(bootstrap_mean(old, **given)),
        "after": asdict(bootstrap_mean(new, **given)),
        "gain": asdict(paired_bootstrap(new, old, **given)),
        "more": more,
        "less": less,
        "win_rate": share,
    }


def told(
    gains: Mapping[str, dict[str, Any]], tokens: Mapping[str, Any], lost: Mapping[str, Any], vitals: Sequence[Mapping[str, Any]]
) -> tuple[str, list[str]]:
    """The headline, and what stands below it."""
    judged, rewarded = gains["judge"], gains["reward"]
    better, worse = judged["gain"]["low"] > 0, judged["gain"]["high"] < 0
    headline = "The policy answers better" if better else "The policy answers worse" if worse else "No difference shown"
    sentences = [
        f"A judge that it never met gives its answers {_signed(judged['gain'])} more, in standard deviations of the judge's own rewards; "
        f"{judged['more']} answers gained and {judged['less']} lost.",
        f"The reward that it was trained on rose by {_signed(rewarded['gain'])}.",
    ]
    if rewarded["gain"]["low"] > 0 and not better:
        sentences.append("The trained-on reward rose and the judge's did not: it learnt to please its reward model.")
    sentences.append(f"Answers are {_signed(tokens['gain'], 1)} tokens longer.")
    bpb = lost["bpb"]
    sentences.append(
        f"General text costs {_signed(bpb, 3)} bits per byte more; of {lost['num_items']} general questions {lost['right_to_wrong']} were "
        f"lost and {lost['wrong_to_right']} won."
    )
    if vitals:
        sentences.append(f"It ended {vitals[-1]['kl']:.1f} nats an answer from where it began, after {len(vitals)} rollouts.")
    return headline, sentences


def _signed(interval: Mapping[str, float], digits: int = 2) -> str:
    return f"{interval['estimate']:+.{digits}f} ({interval['low']:+.{digits}f} to {interval['high']:+.{digits}f})"


def _samples(before: Rows, after: Rows) -> dict[str, Rows]:
    """Where the judge sees the largest gains and the largest losses."""
    pairs = sorted(zip(before, after, strict=True), key=lambda pair: pair[0]["reward"] - pair[1]["reward"])
    shown = {"gained": pairs[:_SAMPLES], "lost": pairs[::-1][:_SAMPLES]}
    return {
        name: [
            {
                "question": old["question"],
                "before": old["answer"],
                "after": new["answer"],
                "reward_before": old["reward"],
                "reward_after": new["reward"],
            }
            for old, new in some
            if (new["reward"] > old["reward"]) == (name == "gained") and new["answer"] != old["answer"]
        ]
        for name, some in shown.items()
    }
