"""Made-up predictions in the form that the harness writes: one task, one model, scores as the test wants them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.core.config import Config
from mygpt.core.run import Run

LOWER_IS_BETTER = ("bits_per_byte", "caved", "toxic")


class MeasuredConfig(Config):
    model: str
    task: str
    values: tuple[float | None, ...]
    version: str = "1"
    primary: str = "acc"
    form: str = "choice"
    chance: float | None = None
    ids: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    num_bytes: tuple[int, ...] = ()
    confidence: tuple[float, ...] = ()
    unparsed: tuple[int, ...] = ()  # places of answers that could not be read
    extra: dict[str, tuple[float, ...]] = Field(default_factory=dict)  # further metrics
    question: str = "What is item {i}?"
    higher_is_better: dict[str, bool] | None = None
    task_content: str | None = None
    answer: str = ""


@dataclass(frozen=True)
class Engine:
    """Answers nothing; it is only named."""

    identity: dict[str, Any]


@recipe
def measured(config: MeasuredConfig, *, completer: Engine | None = None, run: Run) -> Predictions:
    rows = []
    for i, value in enumerate(config.values):
        row: dict[str, Any] = {
            "item_id": config.ids[i] if config.ids else f"{config.task}-{i}",
            "task": config.task,
            "version": config.version,
            "form": config.form,
            "prompt_sha256": f"{i:064x}",
            "prompt_tokens": 20 + i % 7,
            "question": config.question.format(i=i),
            "answer": f"{config.model} says {'right' if value == 1 else 'something'} about {i}",
            "reference": f"the truth about {i}",
            "finish_reason": "stop",
            "parsed": i not in config.unparsed,
            "cluster": config.clusters[i] if config.clusters else f"{config.task}-{i}",
            config.primary: value,
        }
        row |= {name: values[i] for name, values in config.extra.items()}
        if config.num_bytes:
            row["num_bytes"] = config.num_bytes[i]
        if config.confidence:
            row["confidence"] = config.confidence[i]
        rows.append(row)
    metrics = [config.primary, *config.extra]
    facts = {
        "task": config.task,
        "version": config.version,
        "form": config.form,
        "primary": config.primary,
        "metrics": metrics,
        "higher_is_better": {m: m not in LOWER_IS_BETTER for m in metrics} if config.higher_is_better is None else config.higher_is_better,
        "chance": config.chance,
        "answer": config.answer,
        "model": completer.identity if completer else {"engine": "scripted", "name": config.model},
    }
    if config.task_content is not None:
        facts["task_content"] = config.task_content
    run.count(tokens=12 * len(rows))
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)


def made(run: Run, model: str, task: str, values: Sequence[float | None], **settings: Any) -> Predictions:
    return measured(MeasuredConfig(model=model, task=task, values=tuple(values), **settings), run=run)


def shares(n: int, right: int) -> list[float]:
    """The first `right` of n items right."""
    return [float(i < right) for i in range(n)]


def flipped(values: Sequence[float], *, lost: int, won: int) -> list[float]:
    """The first `lost` right answers become wrong, the first `won` wrong ones right."""
    after = list(values)
    for i in [i for i, v in enumerate(values) if v == 1][:lost]:
        after[i] = 0.0
    for i in [i for i, v in enumerate(values) if v == 0][:won]:
        after[i] = 1.0
    return after


def plausible(run: Run, *, seed: int = 0) -> list[Predictions]:
    """Three models on six tasks, as a real comparison might look: for looking at the page."""
    draw = random.Random(seed)
    made_up = []
    rates = {
        "ag_news": (4, 0.25, 200, {"base": 0.52, "tuned": 0.71, "served": 0.70}),
        "trec": (6, 1 / 6, 150, {"base": 0.41, "tuned": 0.46, "served": 0.46}),
        "imdb": (2, 0.5, 120, {"base": 0.74, "tuned": 0.62, "served": 0.63}),
        "gsm8k": (0, None, 100, {"base": 0.03, "tuned": 0.04, "served": 0.02}),
        "house_rules": (0, None, 18, {"base": 0.30, "tuned": 0.55, "served": 0.55}),
    }
    questions = {
        "ag_news": "Which section of the paper would print this? The grain exchange in Duluth closed {i} cents higher on Friday after two "
        "quiet days, as buyers waited for the harvest figures of the northern plains.",
        "gsm8k": "A baker fills {i} trays with 12 rolls each and sells half of them. How many rolls are left?",
    }
    difficulty = {task: [draw.random() for _ in range(n)] for task, (_, _, n, _) in rates.items()}
    for model in ("base", "tuned", "served"):
        for task, (choices, chance, n, by_model) in rates.items():
            values = [float(0.75 * d + 0.25 * draw.random() < by_model[model]) for d in difficulty[task]]
            confidence = [min(0.99, max(1 / choices, draw.gauss(0.62 + 0.1 * v, 0.15))) for v in values] if choices else []
            made_up.append(
                made(
                    run,
                    model,
                    task,
                    values,
                    chance=chance,
                    confidence=tuple(confidence),
                    form="choice" if choices else "generate",
                    primary="acc" if choices else "numeric",
                    unparsed=() if choices else tuple(range(0, n, 9)),
                    question=questions.get(task, "What does item {i} of this task ask?"),
                    extra={"acc_norm": tuple(values[::-1])} if choices else {},
                )
            )
        loss = {"base": 0.0, "tuned": 0.021, "served": 0.020}[model]
        values = [1.02 + 0.1 * (i % 5) + loss + draw.gauss(0, 0.01) for i in range(40)]
        made_up.append(
            made(
                run,
                model,
                "general_text",
                values,
                form="rolling",
                primary="bits_per_byte",
                num_bytes=tuple([800 + 5 * i for i in range(40)]),
            )
        )
    return made_up
