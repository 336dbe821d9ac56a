"""Before and after: did tuning help, was it needed, and what did it cost? Arms side by side, one verdict, one page.

Arms, cheapest first: base, base with examples in the prompt, base with retrieval, tuned, tuned with retrieval. Each is a Predictions
artefact of the harness on the task of `held_out_questions`; `general_check` measures base and tuned model on what they should not have
lost. An arm that was not run is None.
`adapter` is what training made: an Adapter, or a Model where all weights were tuned.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from mygpt.artifacts.artifact import Artifact
from mygpt.artifacts.corpus import Corpus
from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe, safe_name
from mygpt.artifacts.report import Predictions, Report, lineage_rows, write_report
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.comparison import ARMS, Comparison
from mygpt.evaluate.forgetting import Forgetting, GeneralCheckConfig, compare, held_out_bpb
from mygpt.evaluate.held_out_questions import SETS, HeldOutConfig
from mygpt.evaluate.verdict import LABELS, decide
from mygpt.metrics.bootstrap import Interval
from mygpt.views.report_page import render

Rows = list[dict[str, Any]]


class BeforeAfterConfig(Config):
    answers: HeldOutConfig = HeldOutConfig()
    general: GeneralCheckConfig = GeneralCheckConfig()
    few_shot_examples: int = 3
    num_resamples: int = 10_000
    min_items: int = 20  # below: "too few to decide"; from there to 30 passages the report says "interval unreliable"
    max_forgetting_bpb: float = 0.05
    num_samples: int = 5  # shown of the best and of the worst answers


@recipe
def before_after(
    config: BeforeAfterConfig,
    *,
    dataset: Dataset,
    base_zero_shot: Predictions | None = None,
    base_few_shot: Predictions | None = None,
    base_retrieval: Predictions | None = None,
    tuned: Predictions | None = None,
    tuned_retrieval: Predictions | None = None,
    general_base: Predictions | None = None,
    general_tuned: Predictions | None = None,
    adapter: Adapter | Model | None = None,
    corpus: Corpus | None = None,
    run: Run,
) -> Report:
    """Compare the arms, decide, and write report.json and report.html."""
    arms = dict(zip(ARMS, (base_zero_shot, base_few_shot, base_retrieval, tuned, tuned_retrieval), strict=True))
    run_arms = {arm: predictions for arm, predictions in arms.items() if predictions is not None}
    rows = {name: {arm: [r for r in p.rows if r["slice"] == name] for arm, p in run_arms.items()} for name in SETS}
    seed = run.seed_for("bootstrap")
    comparisons = {name: _comparison(rows[name], config.num_resamples, seed) for name in SETS}
    knowledge = comparisons["knowledge"]
    forgetting = (
        compare(general_base, general_tuned, num_resamples=config.num_resamples, seed=seed) if general_base and general_tuned else None
    )
    verdict = decide(
        knowledge, comparisons["generalisation"], forgetting, min_items=config.min_items, max_forgetting_bpb=config.max_forgetting_bpb
    )
    measured = {**arms, "general_base": general_base, "general_tuned": general_tuned}
    inputs: dict[str, Artifact | None] = {"dataset": dataset, "corpus": corpus, "adapter": adapter, **measured}
    figures = {
        "name": safe_name(run.name),
        "measured": max(a.manifest.created for a in inputs.values() if a is not None)[:10],
        "verdict": {**asdict(verdict), "sentences": list(verdict.sentences), "text": verdict.text},
        **_key_figures(knowledge, forgetting),
        "bpb_held_out": {"base": _held_out(general_base), "tuned": _held_out(general_tuned)},
        **{f"pairs_{name}": len(dataset.split(name)) for name in ("train", *SETS)},
        "sets": {name: _set_figures(comparison, rows[name], config.min_items) for name, comparison in comparisons.items() if comparison},
        "forgetting": None if forgetting is None else {**asdict(forgetting), "max_bpb": config.max_forgetting_bpb},
        "dropped": dataset.manifest.facts.get("dropped", {}),
        "documents": _documents(corpus, dataset),
        "training": _training(adapter),
        "samples": _samples(rows["knowledge"], config.num_samples),
        "settings": config.model_dump(mode="json"),
        "lineage": lineage_rows((role.replace("_", " "), artifact) for role, artifact in inputs.items() if artifact is not None),
    }
    facts = {"outcome": verdict.outcome, "headline": verdict.headline}
    return publish(Report, run, lambda folder: write_report(folder, figures, render(figures)), facts=facts)


def _comparison(rows: Mapping[str, Rows], num_resamples: int, seed: int) -> Comparison | None:
    """None when the set has no questions. Raises UsageError when arms answered different ones."""
    asked = {arm: [r["item_id"] for r in arm_rows] for arm, arm_rows in rows.items()}
    first = asked.get("base_zero_shot", [])
    for arm, ids in asked.items():
        if ids != first:
            raise UsageError(
                f"{LABELS[arm]} answered {len(ids)} questions that are not the {len(first)} of {LABELS['base_zero_shot']}.",
                fix="Measure all arms on one dataset with the same settings.",
            )
    if not first:
        return None
    scores = {arm: [r["f1"] for r in arm_rows] for arm, arm_rows in rows.items()}
    return Comparison(scores, [r["cluster"] for r in rows["base_zero_shot"]], num_resamples, seed)


def _key_figures(knowledge: Comparison | None, forgetting: Forgetting | None) -> dict[str, Any]:
    def mean(arm: str) -> float | None:
        return knowledge.mean(arm) if knowledge and arm in knowledge.arms else None

    def gain(arm: str, other: str) -> list[float] | None:
        if knowledge is None or not {arm, other} <= set(knowledge.arms):
            return None
        return _limits(knowledge.difference(arm, other))

    return {
        "f1_base": mean("base_zero_shot"),
        "f1_fewshot": mean("base_few_shot"),
        "f1_retrieval": mean("base_retrieval"),
        "f1_tuned": mean("tuned"),
        "f1_tuned_retrieval": mean("tuned_retrieval"),
        "f1_ci": gain("tuned", "base_zero_shot"),
        "f1_ci_fewshot": gain("tuned", "base_few_shot"),
        "f1_retrieval_ci": gain("tuned_retrieval", "base_retrieval"),
        "forgetting_bpb": forgetting.bpb.estimate if forgetting else None,
        "general_right": _general_right(forgetting) if forgetting else None,
        "general_flips": {"right_to_wrong": forgetting.right_to_wrong, "wrong_to_right": forgetting.wrong_to_right} if forgetting else None,
    }


def _general_right(forgetting: Forgetting) -> dict[str, int]:
    return {"base": forgetting.right_base, "tuned": forgetting.right_tuned, "items": forgetting.num_items}


def _set_figures(comparison: Comparison, rows: Mapping[str, Rows], min_items: int) -> dict[str, Any]:
    """What is shown of one set. No arm is called the best where there is too little to say so."""
    best, cheapest = (comparison.best, comparison.cheapest) if comparison.enough(min_items) else (None, None)
    arms = [
        {
            "arm": arm,
            "label": LABELS[arm],
            "f1": comparison.mean(arm),
            "f1_interval": _limits(comparison.interval(arm)),
            "rouge_l": _mean(r["rouge_l"] for r in rows[arm]),
            "exact_match": _mean(r["exact_match"] for r in rows[arm]),
            "answer_tokens": _mean(r["answer_tokens"] for r in rows[arm] if r["answer_tokens"] is not None),
            "share_cut": _mean(r["finish_reason"] == "length" for r in rows[arm]),
            "share_abstained": _mean(r["finish_reason"] == "abstained" for r in rows[arm]),
            "behind_best": None if best is None or arm == best else asdict(comparison.difference(best, arm)),
            "over_base": None if arm == "base_zero_shot" else asdict(comparison.difference(arm, "base_zero_shot")),
        }
        for arm in comparison.arms
    ]
    counts = {"items": comparison.num_items, "passages": comparison.num_passages, "reliable": comparison.reliable}
    return {**counts, "best": best, "cheapest": cheapest, "arms": arms}


def _samples(rows: Mapping[str, Rows], count: int) -> dict[str, Rows]:
    """Where tuning helped most and hurt most, by the change in token F1."""
    if "tuned" not in rows:
        return {"best": [], "worst": []}
    pairs = [
        {
            "question": before["question"],
            "reference": before["reference"],
            "base": before["answer"],
            "tuned": after["answer"],
            "f1_base": before["f1"],
            "f1_tuned": after["f1"],
            "change": after["f1"] - before["f1"],
        }
        for before, after in zip(rows["base_zero_shot"], rows["tuned"], strict=True)
    ]
    count = min(count, len(pairs) // 2)
    by_change = sorted(pairs, key=lambda pair: pair["change"])
    return {"best": by_change[::-1][:count], "worst": by_change[:count]}


def _documents(corpus: Corpus | None, dataset: Dataset) -> dict[str, Any] | None:
    if corpus is None:
        return None
    asked = dataset.manifest.facts.get("passages_used")
    skipped = [asdict(s) for s in corpus.skipped]
    return {"read": corpus.num_documents, "passages": corpus.num_passages, "passages_asked_about": asked, "skipped": skipped}


def _training(adapter: Adapter | Model | None) -> dict[str, Any] | None:
    if adapter is None:
        return None
    facts = adapter.manifest.facts
    kept = {key: facts.get(key) for key in ("curve", "tokens_per_second", "method", "trainable")}
    return {**kept, "seconds": adapter.manifest.cost.get("seconds"), "settings": adapter.manifest.config}


def _held_out(predictions: Predictions | None) -> float | None:
    return held_out_bpb(predictions) if predictions else None


def _limits(interval: Interval) -> list[float]:
    return [interval.low, interval.high]


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return sum(listed) / len(listed) if listed else None
