"""Comparisons end to end on made-up predictions: figures by hand, words, traceability, and what is refused."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, Report, write_predictions
from mygpt.artifacts.task import Item, Task, TaskSettings, write_task
from mygpt.core.config import Config
from mygpt.core.errors import Refused, UsageError
from mygpt.core.run import Run
from mygpt.evaluate.compare_models import CompareConfig, compare_models
from mygpt.evaluate.harness import RunTaskConfig, run_task
from mygpt.evaluate.same_items import join
from mygpt.evaluate.task_figures import reliability
from mygpt.infer.protocols import Score
from mygpt.metrics.holm import holm
from tests.evaluate.made_up_predictions import flipped, made, plausible, shares

HALF = shares(100, 50)


def compared(run: Run, *predictions: Predictions, **settings: Any) -> Report:
    return compare_models(CompareConfig(num_resamples=1_000, **settings), predictions=predictions, run=run)


def task_of(report: Report, name: str) -> dict[str, Any]:
    return next(t for t in report.figures["tasks"] if t["task"] == name)


def difference_of(report: Report, name: str, label: str = "tuned") -> dict[str, Any]:
    found: dict[str, Any] = next(m["difference"] for m in task_of(report, name)["models"] if m["label"] == label)
    return found


def test_figures_by_hand(run: Run) -> None:
    """5 lost and 15 won of 100, p = 2 * 21700 / 2^20 = 0.0414; beside a task with p = 1 Holm doubles it, and no difference is claimed."""
    after = flipped(HALF, lost=5, won=15)
    base = [made(run, "base", name, HALF) for name in ("one", "two")]
    alone = difference_of(compared(run, base[0], made(run, "tuned", "one", after)), "one")
    assert (alone["estimate"], alone["won"], alone["lost"]) == (pytest.approx(0.10), 15, 5)
    assert alone["p"] == alone["p_adjusted"] == pytest.approx(0.041389, abs=1e-6)
    assert (alone["verdict"], alone["test"], alone["items_needed"]) == ("better", "McNemar, exact", 642)
    report = compared(run, *base, made(run, "tuned", "one", after), made(run, "tuned", "two", HALF))
    both = difference_of(report, "one")
    assert both["p_adjusted"] == pytest.approx(2 * alone["p"]) and both["verdict"] == "no difference shown"
    assert report.figures["headline"] == "Against base, on 2 tasks: no difference is shown for tuned."


def test_other_tokens_are_counted_where_both_sides_tell_them(run: Run) -> None:
    """Two of 40 prompts differ under one template: counted and said. Where one side hashed text, nothing can be compared."""
    base, tuned, served = (made(run, name, "t", shares(40, 20)) for name in ("base", "tuned", "served"))
    for one, hashed in ((base, ["ids"]), (tuned, ["ids"]), (served, ["text"])):
        one.manifest.facts.update(hashed=hashed, template="t" * 64)
    for row in tuned.rows[:2]:
        row["prompt_sha256"] = "f" * 64
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event["text"]) if event["event"] == "warning" else None)
    report = compared(run, base, tuned, served)
    assert [m["other_prompts"] for m in task_of(report, "t")["models"]] == [0, 2, None]
    assert said == ["2 of 40 items of t reached tuned in other tokens than base, through one chat template: more than the model differs."]
    assert "2 prompts are other tokens than those of base" in report.page.read_text(encoding="utf-8")


def test_another_template_is_told_of_strangers_and_refused_of_relatives(run: Run) -> None:
    """A model is asked as it was tuned: its ancestor through another template would be another prompt, not another model."""
    base, tuned = (made(run, name, "t", shares(40, 20)) for name in ("base", "tuned"))
    named: dict[str, Any] = {"labels": ("base", "tuned")}
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event["text"]) if event["event"] == "note" else None)
    for one, template in ((base, "t"), (tuned, "u")):
        one.manifest.facts.update(template=template * 64, model={"engine": "torch", "model": template * 64, "adapter": None})
    compared(run, base, tuned, **named)
    told = "On t, tuned was asked through the chat template uuuuuuuuuuuu and base through tttttttttttt"
    assert f"{told}." in said
    for identity in ({"model": "t" * 64, "adapter": "a" * 64}, {"model": "t" * 64, "adapter": None}):
        tuned.manifest.facts["model"] = {"engine": "torch", **identity}
        run.fresh = True
        with pytest.raises(Refused, match=f"{told}, though one comes from the other"):
            compared(run, base, tuned, **named)
    assert compared(run, base, tuned, other_templates=True, **named).figures["models"][1]["label"] == "tuned"


def test_every_number_can_be_traced_to_items(run: Run) -> None:
    """From the items in report.json alone: means, differences, flips; and the ids lead to predictions with every row."""
    report = compared(run, *plausible(run))
    figures = report.figures
    p_values = {}
    for task in figures["tasks"]:
        scores_NM = np.asarray([row[1:] for row in task["item_scores"]])
        weights_N = np.asarray(task["weights"] or [1.0] * len(scores_NM))
        assert len(scores_NM) == task["items"]
        for number, model in enumerate(task["models"]):
            mean = float((scores_NM[:, number] * weights_N).sum() / weights_N.sum())
            assert model["score"]["estimate"] == pytest.approx(mean)
            found = model["difference"]
            if found:
                gain_N = (scores_NM[:, number] - scores_NM[:, 0]) * (1 if task["higher_is_better"] else -1)
                assert found["estimate"] == pytest.approx(float((scores_NM[:, number] - scores_NM[:, 0]) @ weights_N / weights_N.sum()))
                assert (found["won"], found["lost"]) == (int((gain_N > 0).sum()), int((gain_N < 0).sum()))
                assert found["low"] <= found["estimate"] <= found["high"]
                p_values[f"{task['task']} {model['label']}"] = found["p"]
            kept = Predictions.open(report.store, model["predictions"])
            rows = {row["item_id"]: row for row in kept.rows}
            assert [rows[row[0]][task["metric"]] for row in task["item_scores"]] == scores_NM[:, number].tolist()
            assert model["unparsed"] == sum(row["parsed"] is False for row in kept.rows)
            assert {s["item_id"] for s in (*model["best"], *model["worst"])} <= set(rows)
    corrected = holm(p_values)  # once over the whole page
    for task in figures["tasks"]:
        for model in task["models"]:
            if model["difference"]:
                assert model["difference"]["p_adjusted"] == pytest.approx(corrected[f"{task['task']} {model['label']}"])
    assert {a["id"] for a in figures["lineage"]} == {i for m in figures["models"] for i in m["predictions"]}
    assert all(i in report.page.read_text() for m in figures["models"] for i in m["predictions"])


def test_words(run: Run) -> None:
    """One task for each thing that may be said."""
    gain = flipped(HALF, lost=0, won=20)
    settings: dict[str, dict[str, Any]] = {"rouge": {"primary": "rouge_l"}, "floor": {"chance": 0.5}}
    values = {"up": (HALF, gain), "down": (gain, HALF), "same": (HALF, HALF), "few": (HALF[40:60], [1.0] * 20), "floor": (HALF, gain)}
    values["rouge"] = ([0.3, 0.4] * 20, [0.4, 0.5] * 20)
    predictions = [
        made(run, model, name, pair[number], **settings.get(name, {}))
        for number, model in enumerate(("base", "tuned"))
        for name, pair in values.items()
    ]
    report = compared(run, *predictions)
    assert {name: difference_of(report, name)["verdict"] for name in values} == {
        "up": "better",
        "down": "worse",
        "same": "no difference shown",
        "few": "interval unreliable",
        "floor": "no headroom: plumbing only",
        "rouge": "shared words: diagnostic only",
    }
    assert difference_of(report, "rouge")["p_adjusted"] is None  # no claim, so it takes no share of the error allowed
    assert report.figures["headline"] == "Against base, on 6 tasks: tuned is better on 1 and worse on 1."
    (sentence,) = report.figures["sentences"]
    for said in (
        "Better: up (+0.200",
        "Worse: down (−0.200",
        "No difference shown: same",
        "under 30 independent items: few",
        "plumbing only: floor",
    ):
        assert said in sentence


def test_less_is_better(run: Run) -> None:
    sizes = tuple(range(900, 940))
    base = [1.0 + 0.05 * (i % 5) for i in range(40)]
    pair = [
        made(run, name, "text", values, primary="bits_per_byte", form="rolling", num_bytes=sizes)
        for name, values in (("base", base), ("tuned", [b + 0.02 for b in base]))
    ]
    report = compared(run, *pair)
    assert difference_of(report, "text")["verdict"] == "worse"
    worst = next(m for m in task_of(report, "text")["models"] if m["label"] == "tuned")["worst"]
    assert len(worst) == 3 and all(item["change"] == pytest.approx(0.02) for item in worst)


def test_best_and_worst_items(run: Run) -> None:
    report = compared(run, made(run, "base", "t", HALF), made(run, "tuned", "t", flipped(HALF, lost=2, won=7)), num_samples=4)
    tuned = task_of(report, "t")["models"][1]
    assert [i["item_id"] for i in tuned["best"]] == ["t-50", "t-51", "t-52", "t-53"]
    assert [i["item_id"] for i in tuned["worst"]] == ["t-0", "t-1"]  # no more were lost
    assert tuned["worst"][0] == {
        "item_id": "t-0",
        "question": "What is item 0?",
        "reference": "the truth about 0",
        "before": "base says right about 0",
        "after": "tuned says something about 0",
        "score_before": 1.0,
        "score_after": 0.0,
        "change": -1.0,
    }


def test_answers_that_could_not_be_read_are_counted(run: Run) -> None:
    report = compared(run, made(run, "base", "t", HALF), made(run, "tuned", "t", HALF, unparsed=(3, 60, 61)))
    assert [m["unparsed"] for m in task_of(report, "t")["models"]] == [0, 3]


def test_items_without_a_score(run: Run) -> None:
    values: list[float | None] = [*HALF]
    values[7] = values[70] = None
    report = compared(run, made(run, "base", "t", HALF), made(run, "tuned", "t", values))
    task = task_of(report, "t")
    assert [m["unscored"] for m in task["models"]] == [0, 2] and task["items"] == 98
    assert task["models"][0]["score"]["estimate"] == pytest.approx(49 / 98)


def test_a_model_that_did_fewer_tasks(run: Run) -> None:
    report = compared(run, made(run, "base", "a", HALF), made(run, "base", "b", HALF), made(run, "tuned", "a", HALF))
    assert [m["label"] for m in task_of(report, "b")["models"]] == ["base"]
    assert "not measured" in report.page.read_text()


def test_calibration_by_hand(run: Run) -> None:
    """Four answers at 0.85, three right; six at 0.35, three right. ECE = 0.4 * |0.75 - 0.85| + 0.6 * |0.5 - 0.35| = 0.13. Brier =
    (3 * 0.15^2 + 0.85^2 + 3 * 0.65^2 + 3 * 0.35^2) / 10 = 0.2425."""
    values = [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    (task,) = join([made(run, "base", "t", values, confidence=(0.85,) * 4 + (0.35,) * 6)])
    found = reliability(task, task.models[0], "confidence")
    assert found is not None and (found["ece"], found["brier"]) == pytest.approx((0.13, 0.2425))
    assert [(b["count"], b["confidence"], b["right"]) for b in found["bins"]] == [
        (6, pytest.approx(0.35), 0.5),
        (4, pytest.approx(0.85), 0.75),
    ]
    (without,) = join([made(run, "base", "t", values)])
    assert reliability(without, without.models[0], "confidence") is None
    (loud,) = join([made(run, "base", "t", values, confidence=(0.85,) * 9 + (1.5,))])
    with pytest.raises(UsageError, match=r"`confidence` of base on t is no confidence: it goes from 0\.85 to 1\.5"):
        reliability(loud, loud.models[0], "confidence")


def test_mean_over_tasks_by_hand(run: Run) -> None:
    """Gains of 0.2 and 0: mean 0.1, and its limits are half as far as those of the two, squared and added."""
    gain = flipped(HALF, lost=0, won=20)
    report = compared(
        run,
        *(made(run, m, t, v) for m, t, v in (("base", "a", HALF), ("base", "b", HALF), ("tuned", "a", gain), ("tuned", "b", HALF))),
        average=True,
    )
    rows = {row["label"]: row for row in report.figures["average"]["models"]}
    assert (rows["base"]["mean"], rows["tuned"]["mean"]) == pytest.approx((0.5, 0.6))
    one, two = difference_of(report, "a"), difference_of(report, "b")
    below = math.hypot(one["estimate"] - one["low"], two["estimate"] - two["low"]) / 2
    assert (rows["tuned"]["difference"]["estimate"], rows["tuned"]["difference"]["low"]) == pytest.approx((0.1, 0.1 - below))


def test_overlap_of_words_across_tasks_is_refused(run: Run) -> None:
    scores = [0.3, 0.4] * 20
    one, two = (made(run, m, t, scores, primary="rouge_l") for m, t in (("base", "news"), ("tuned", "mail")))
    with pytest.raises(
        UsageError, match=r"tuned and base have no task in common \(base: news \(rouge_l\); tuned: mail \(rouge_l\)\). ROUGE and BLEU"
    ):
        compared(run, one, two)
    four = [made(run, m, t, scores, primary="bleu") for m in ("base", "tuned") for t in ("news", "mail")]
    with pytest.raises(UsageError, match=r"Overlap of words has no mean over different tasks: bleu \(news\), bleu \(mail\)"):
        compared(run, *four, average=True)
    assert difference_of(compared(run, *four), "news")["verdict"] == "shared words: diagnostic only"


def test_token_f1_of_summaries_is_diagnostic(run: Run) -> None:
    scores = [0.3, 0.4] * 20
    for answer, verdict in (("summary", "shared words: diagnostic only"), ("text", "better")):
        values = {"base": scores, "tuned": [v + 0.2 for v in scores]}
        pair = [made(run, model, "news", own, primary="f1", answer=answer) for model, own in values.items()]
        assert difference_of(compared(run, *pair), "news")["verdict"] == verdict


def test_what_has_no_mean_and_what_is_alone(run: Run) -> None:
    mixed = [made(run, m, t, HALF, primary=p) for m in ("base", "tuned") for t, p in (("a", "acc"), ("b", "f1"))]
    with pytest.raises(UsageError, match=r"Tasks with different metrics have no mean: acc \(a\), f1 \(b\)"):
        compared(run, *mixed, average=True)
    with pytest.raises(UsageError, match="There is one model to compare: base"):
        compared(run, made(run, "base", "a", HALF))


def test_the_same_comparison_is_the_same_bytes(run: Run) -> None:
    pair = made(run, "base", "t", HALF), made(run, "tuned", "t", flipped(HALF, lost=3, won=9))
    first = compared(run, *pair)
    run.fresh = True
    assert compared(run, *pair).manifest.content == first.manifest.content


# -- with the harness --------------------------------------------------------------------------------------------------------------


class Knows:
    """Prefers the right choice on the first `right` items; every text costs its words."""

    def __init__(self, right: int):
        self._right = right

    @property
    def identity(self) -> dict[str, Any]:
        return {"engine": "scripted", "name": f"knows {self._right}"}

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        good = [int(prompt.split()[-1]) < self._right for prompt in prompts]
        prefers = [text.strip() == ("yes" if known else "no") for known, text in zip(good, continuations, strict=True)]
        return [Score(-1.0 if likes else -3.0, 1, len(text)) for likes, text in zip(prefers, continuations, strict=True)]


class YesNoConfig(Config):
    num_items: int
    name: str = "yes_no"


@recipe
def yes_no(config: YesNoConfig, *, run: Run) -> Task:
    items = [Item(f"q{i}", f"Is it so, number {i}", ("yes", "no"), 0) for i in range(config.num_items)]
    settings = TaskSettings(name=config.name, version="1", form="choice", primary="acc", chance=0.5)
    return publish(Task, run, lambda folder: write_task(folder, items, settings))


def test_predictions_of_the_harness(run: Run) -> None:
    """39 and 50 of 60 right, all flips one way: p = 2 / 2^11. Confidence 1 / (1 + e^-2) = 0.88 everywhere, so ECE = |0.88 - share|."""
    task = yes_no(YesNoConfig(num_items=60), run=run)
    measured = [run_task(RunTaskConfig(cached=False), task=task, scorer=Knows(right), run=run) for right in (39, 50)]
    report = compared(run, *measured)
    shown = task_of(report, "yes_no")
    assert [m["label"] for m in shown["models"]] == ["knows 39", "knows 50"] and shown["headroom"] is True
    found = difference_of(report, "yes_no", "knows 50")
    assert (found["won"], found["lost"], found["p"], found["verdict"]) == (11, 0, pytest.approx(2 / 2**11), "better")
    confidence = 1 / (1 + math.exp(-2))
    assert shown["models"][1]["reliability"]["ece"] == pytest.approx(abs(confidence - 50 / 60))
    brier = (50 * (1 - confidence) ** 2 + 10 * confidence**2) / 60
    assert f"Brier score {brier:.3f}" in report.page.read_text()
    assert shown["models"][1]["best"][0]["after"] == "yes" and shown["models"][1]["best"][0]["before"] == "no"


# -- what a difference rests on -------------------------------------------------------------------------------------------------


class CheckedConfig(Config):
    dirty: tuple[bool | None, ...]
    of_task: str = "t"


@recipe
def checked(config: CheckedConfig, *, run: Run) -> Predictions:
    rows = [{"item_id": f"{config.of_task}-{i}", "dirty": state} for i, state in enumerate(config.dirty)]
    facts = {"task": f"contamination of {config.of_task}", "of_task": config.of_task, "version": "1", "primary": "dirty"}
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)


def test_the_gain_on_items_that_both_could_read(run: Run) -> None:
    """Of 100 answers of the base 48 could not be read, all wrong. Of the 52 others it has 26 right and the tuned one 31: +5/52, not +53."""
    before = [float(i >= 48 and i % 2 == 0) for i in range(100)]
    after = [1.0] * 48 + [float(i % 2 == 0 or i < 58) for i in range(48, 100)]
    report = compared(run, made(run, "base", "t", before, unparsed=tuple(range(48))), made(run, "tuned", "t", after))
    [base, tuned] = task_of(report, "t")["models"]
    both = tuned["read_by_both"]
    assert tuned["difference"]["estimate"] == pytest.approx(0.53) and base["read_by_both"] is None
    assert (both["items"], both["baseline"], both["score"]) == (52, 0.5, pytest.approx(31 / 52))
    assert both["difference"]["estimate"] == pytest.approx(5 / 52)
    told = next(s for s in report.figures["sentences"] if "could not be read" in s)
    assert told.startswith("On t, 48 answers of base and 0 of tuned could not be read; on the 52 items")
    assert "could be read for both" in report.page.read_text(encoding="utf-8")
    all_read = compared(run, made(run, "base", "t", before), made(run, "tuned", "t", after))
    assert difference_of(all_read, "t") and "could be read for both" not in all_read.page.read_text(encoding="utf-8")


def test_clean_and_dirty_items_apart(run: Run) -> None:
    """Ten dirty items of 40, all right after tuning; of the 29 clean ones as many as before; one cannot be told."""
    before = [0.0] * 10 + [float(i % 2) for i in range(30)]
    after = [1.0] * 10 + before[10:]
    states = [True] * 10 + [False] * 29 + [None]
    base, tuned = made(run, "base", "t", before), made(run, "tuned", "t", after)
    first, second = checked(CheckedConfig(dirty=tuple([None] * 40)), run=run), checked(CheckedConfig(dirty=tuple(states)), run=run)
    report = compare_models(
        CompareConfig(num_resamples=500), predictions=(base, tuned), contamination=(first, second), run=run  # type: ignore[arg-type]
    )
    assert isinstance(report, Report)
    parts = {m["label"]: m["contamination"] for m in task_of(report, "t")["models"]}
    assert {name: parts["tuned"][name]["items"] for name in ("clean", "dirty", "undecided")} == {"clean": 29, "dirty": 10, "undecided": 1}
    assert parts["tuned"]["dirty"]["score"]["estimate"] == 1.0 and parts["tuned"]["dirty"]["difference"]["estimate"] == 1.0
    assert parts["tuned"]["clean"]["difference"]["estimate"] == 0.0 and parts["base"]["clean"]["difference"] is None
    assert parts["tuned"]["undecided"]["score"] is None  # of one item there is none
    assert any(s.startswith("On t, tuned on items by what is in the training data: 29 clean (0.483, ") for s in report.figures["sentences"])
    page = report.page.read_text(encoding="utf-8")
    assert "Clean and dirty items" in page and "29 items" in page
    with pytest.raises(UsageError, match="contamination of `other`, which is not compared"):
        compare_models(
            CompareConfig(),
            predictions=(base, tuned),
            contamination=(checked(CheckedConfig(dirty=(), of_task="other"), run=run),),  # type: ignore[arg-type]
            run=run,
        )
