"""The report of a race: every contender's score, what it costs and what it forgot, as JSON and as one page.

Scores are token F1 on the held-out questions of one set: those about documents that were studied (`knowledge`), else the others.
Training's figures are those of the ledger that training keeps; what answering takes is measured on all questions in one call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe, safe_name
from mygpt.artifacts.report import Predictions, Report, lineage_rows, write_report
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.evaluate.comparison import Comparison
from mygpt.evaluate.forgetting import Forgetting, compare
from mygpt.evaluate.held_out_questions import SETS
from mygpt.metrics.bootstrap import Interval
from mygpt.pipelines.race_verdict import BASE, choose, keeping_up
from mygpt.views.race_page import render

LABELS: Mapping[str, str] = {
    BASE: "the base",
    "few_shot": "examples in the prompt",
    "retrieval": "retrieval",
    "prompt": "prompt tuning",
    "prefix": "prefix tuning",
    "p_tuning": "p-tuning",
    "ia3": "IA3",
    "lora": "LoRA",
    "bottleneck": "bottleneck adapters",
    "freeze": "freezing",
    "full": "full fine-tuning",
}
_SAMPLES = 3  # questions on which the contenders differ most

Rows = list[dict[str, Any]]


class RaceReportConfig(Config):
    answered: tuple[str, ...]  # the contender of each of `answers`; the first is the base
    trained: tuple[str, ...] = ()  # of each of `tuned`, and of `general` after the base's
    not_run: tuple[tuple[str, str], ...] = ()  # with the reason
    virtual_tokens: Mapping[str, int] = {}  # read before every question, beside the prompt
    epochs: int = 1
    train_tokens: int = 40_000  # wanted
    num_resamples: int = 10_000
    min_items: int = 20
    max_forgetting_bpb: float = 0.05


@recipe
def race_report(
    config: RaceReportConfig,
    *,
    dataset: Dataset,
    model: Model,
    answers: tuple[Predictions, ...],
    general: tuple[Predictions, ...],
    tuned: tuple[Adapter | Model, ...],
    replay: Dataset | None = None,
    run: Run,
) -> Report:
    """Compare, choose, and write report.json and report.html."""
    made = dict(zip(config.trained, tuned, strict=True))
    order = cheapest_first(config.answered, {name: one.manifest.facts["trainable"] for name, one in made.items()})
    by_name = dict(zip(config.answered, answers, strict=True))
    rows = {name: {arm: [r for r in by_name[arm].rows if r["slice"] == name] for arm in order} for name in SETS}
    asked = [name for name in SETS if rows[name][BASE]]
    seed = run.seed_for("bootstrap")
    comparisons = {name: _comparison(rows[name], order, config.num_resamples, seed) for name in asked}
    deciding = asked[0]
    lost = {
        name: compare(general[0], own, num_resamples=config.num_resamples, seed=seed)
        for name, own in zip(config.trained, general[1:], strict=True)
    }
    lost = {name: lost[name] for name in order if name in lost}
    limits = {"min_items": config.min_items, "max_forgetting_bpb": config.max_forgetting_bpb}
    choice = choose(comparisons[deciding], labels=LABELS, forgetting=lost, **limits)  # type: ignore[arg-type]
    costs = {name: _cost(by_name[name], made.get(name), model, config.virtual_tokens.get(name, 0)) for name in order}
    shown = {name: _set_figures(comparison, rows[name], config.min_items) for name, comparison in comparisons.items()}
    data = {"dataset": dataset, **({"replay": replay} if replay else {})}
    inputs = {**data, "model": model, **made, **{f"answers: {name}": by_name[name] for name in order}}
    figures = {
        "name": safe_name(run.name),
        "measured": max(one.manifest.created for one in inputs.values())[:10],
        "model": model.id,
        "parameters": model.manifest.facts.get("parameters"),
        "choice": {**asdict(choice), "sentences": list(choice.sentences), "text": choice.text},
        "recommended": choice.recommended,
        "deciding_set": deciding,
        "contenders": [
            {
                "contender": name,
                "label": LABELS[name],
                "trained": name in made,
                "artifact": made[name].id if name in made else None,
                "sets": {set_name: shown[set_name]["arms"][name] for set_name in asked},
                "cost": costs[name],
                "forgetting": _forgetting(lost[name], config.max_forgetting_bpb) if name in lost else None,
            }
            for name in order
        ],
        "sets": {name: {key: value for key, value in one.items() if key != "arms"} for name, one in shown.items()},
        "not_run": [{"contender": name, "label": LABELS[name], "reason": reason} for name, reason in config.not_run],
        "train_rows": _train_rows(made),
        "replay_rows": len(replay.split("train")) if replay else 0,
        "train_tokens": next((one.manifest.facts["tokens"] for one in made.values()), 0),
        "max_forgetting_bpb": config.max_forgetting_bpb,
        "samples": _samples(rows[deciding], order),
        "settings": config.model_dump(mode="json"),
        "lineage": lineage_rows(inputs.items()),
    }
    facts = {"outcome": choice.outcome, "headline": choice.headline, "recommended": choice.recommended}
    return publish(Report, run, lambda folder: write_report(folder, figures, render(figures)), facts=facts)


def cheapest_first(names: Sequence[str], trainable: Mapping[str, int]) -> list[str]:
    """Nothing trained before something trained; of these, the fewer weights the cheaper. Of equals, in the order of `LABELS`."""
    return sorted(names, key=lambda name: (trainable.get(name, 0), list(LABELS).index(name)))


def _comparison(rows: Mapping[str, Rows], order: Sequence[str], num_resamples: int, seed: int) -> Comparison:
    asked = [row["item_id"] for row in rows[BASE]]
    assert all([row["item_id"] for row in own] == asked for own in rows.values()), "all answer one task"
    scores = {name: [row["f1"] for row in own] for name, own in rows.items()}
    return Comparison(scores, [row["cluster"] for row in rows[BASE]], num_resamples, seed, tuple(order))


def _set_figures(comparison: Comparison, rows: Mapping[str, Rows], min_items: int) -> dict[str, Any]:
    """No contender is called the best where there is too little to say so."""
    enough = comparison.enough(min_items)
    best, cheapest = (comparison.best, comparison.cheapest) if enough else (None, None)
    arms = {
        name: {
            "f1": comparison.mean(name),
            "f1_interval": _limits(comparison.interval(name)),
            "rouge_l": _mean(r["rouge_l"] for r in rows[name]),
            "exact_match": _mean(r["exact_match"] for r in rows[name]),
            "answer_tokens": _mean(r["answer_tokens"] for r in rows[name] if r["answer_tokens"] is not None),
            "share_cut": _mean(r["finish_reason"] == "length" for r in rows[name]),
            "share_abstained": _mean(r["finish_reason"] == "abstained" for r in rows[name]),
            "over_base": None if name == BASE else asdict(comparison.difference(name, BASE)),
            "behind_best": None if best is None or name == best else asdict(comparison.difference(best, name)),
            "keeps_up": enough and name in keeping_up(comparison),
        }
        for name in comparison.arms
    }
    counts = {"items": comparison.num_items, "passages": comparison.num_passages, "reliable": comparison.reliable}
    return {**counts, "best": best, "cheapest": cheapest, "arms": arms}


def _cost(answers: Predictions, tuned: Adapter | Model | None, model: Model, virtual_tokens: int) -> dict[str, Any]:
    """For every question, and once for training. None is what was not measured."""
    rows = answers.rows
    seconds = answers.manifest.cost.get("seconds")
    read = [row["prompt_tokens"] + virtual_tokens for row in rows if row["prompt_tokens"]]
    every = {"prompt_tokens": _mean(read), "ms_per_answer": round(1000 * seconds / len(rows), 1) if seconds else None}
    if tuned is None:
        nothing = {"train_seconds": 0.0, "tokens_per_second": None, "peak_memory_bytes": None}
        return {**every, "trainable": 0, "trainable_share": 0.0, **nothing}
    return {**every, **training_cost(tuned, model)}


def training_cost(tuned: Adapter | Model, model: Model) -> dict[str, Any]:
    """As training recorded it; peak memory where it kept a ledger."""
    facts, whole = tuned.manifest.facts, model.manifest.facts.get("parameters")
    return {
        "trainable": facts["trainable"],
        "trainable_share": facts["trainable"] / whole if whole else None,
        "train_seconds": tuned.manifest.cost.get("seconds"),
        "tokens_per_second": facts.get("tokens_per_second"),
        "peak_memory_bytes": facts.get("ledger", {}).get("peak_memory_bytes"),
    }


def _forgetting(lost: Forgetting, max_bpb: float) -> dict[str, Any]:
    return {**asdict(lost), "beyond": lost.beyond(max_bpb)}


def _train_rows(made: Mapping[str, Adapter | Model]) -> int:
    for one in made.values():
        dataset = one.manifest.inputs["dataset"][0].digest
        return len(Dataset.of(one.store, dataset).split("train"))
    return 0


def _samples(rows: Mapping[str, Rows], order: Sequence[str]) -> Rows:
    """The questions on which the scores lie furthest apart, with every contender's answer."""
    spreads = [max(f1) - min(f1) for f1 in zip(*([row["f1"] for row in rows[name]] for name in order), strict=True)]
    chosen = sorted(range(len(spreads)), key=lambda i: (-spreads[i], i))[:_SAMPLES]
    return [
        {
            "question": rows[BASE][i]["question"],
            "reference": rows[BASE][i]["reference"],
            "answers": [{"label": LABELS[name], "answer": rows[name][i]["answer"], "f1": rows[name][i]["f1"]} for name in order],
        }
        for i in sorted(chosen)
    ]


def _limits(interval: Interval) -> list[float]:
    return [interval.low, interval.high]


def _mean(values: Any) -> float | None:
    listed = list(values)
    return sum(listed) / len(listed) if listed else None
