"""What tuning took away: general questions now wrong, and bits per byte on text that has nothing to do with the documents.

general_check   one model: right or wrong on each general question; log-probability of general text, and of held-out documents
compare         tuned against base: bits per byte with a paired interval over whole texts, flips with McNemar's exact test
task_changes    any number of tasks after any number of stages: F_i = best score before - score now, with a paired interval, and flips

Source: McCloskey and Cohen 1989, "Catastrophic interference in connectionist networks", for the effect; the measures are those of
`metrics/bits_per_byte`, `metrics/mcnemar` and `metrics/continual`.
We differ: F_i comes with an interval; it does not know that the best of several stages was chosen, and with more than two is a little high.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mygpt.artifacts.corpus import Corpus
from mygpt.artifacts.dataset import Conversation, Dataset, Message
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.general_set import REPLY_TOKENS, is_right, load_general
from mygpt.evaluate.same_items import SameItems, join, model_labels
from mygpt.evaluate.scoring import finite
from mygpt.infer.protocols import Completer, Sampling, Scorer
from mygpt.metrics.bits_per_byte import bits_per_byte
from mygpt.metrics.bootstrap import Interval, bootstrap_ratio, interval_is_reliable
from mygpt.metrics.continual import backward_transfer, forgetting
from mygpt.metrics.holm import holm
from mygpt.metrics.mcnemar import mcnemar_exact

Rows = list[dict[str, Any]]


class GeneralCheckConfig(Config):
    max_tokens: int = REPLY_TOKENS
    piece_characters: int = 1_000  # scored one by one: fits any window, and an interval needs pieces
    max_held_out_characters: int = 20_000


@dataclass(frozen=True)
class Forgetting:
    """Tuned against base on general questions and general text."""

    bpb_base: float
    bpb_tuned: float
    bpb: Interval  # tuned - base: above zero is worse
    num_items: int
    right_base: int
    right_tuned: int
    right_to_wrong: int
    wrong_to_right: int
    p_value: float  # of the flips
    num_texts: int  # behind the interval of `bpb`

    @property
    def reliable(self) -> bool:
        """Whether the interval deserves its level."""
        return interval_is_reliable(self.num_texts)

    def beyond(self, max_bpb: float) -> bool:
        """More bits per byte than allowed, or more questions lost than chance explains."""
        return self.bpb.estimate > max_bpb or (self.p_value < 0.05 and self.right_to_wrong > self.wrong_to_right)


class TaskForgettingConfig(Config):
    num_resamples: int = 10_000
    trained: tuple[str, ...] = ()  # the task that each stage trained, in order, where that is so: gives the backward transfer


@dataclass(frozen=True)
class TaskChange:
    """One task, from its best earlier stage to the last."""

    task: str
    metric: str
    num_items: int
    scores: tuple[float, ...]  # of every stage, in order; higher is better, a metric that falls when better has its sign turned
    best_stage: str
    forgetting: Interval  # best - last: above zero was lost
    lost: int  # items on which the last stage scores lower than the best one
    won: int
    p_value: float  # of the flips, McNemar's exact test


@recipe
def general_check(
    config: GeneralCheckConfig,
    *,
    completer: Completer,
    scorer: Scorer,
    dataset: Dataset | None = None,
    corpus: Corpus | None = None,
    run: Run,
) -> Predictions:
    """`dataset` and `corpus` add the documents that were never trained on; without them only general text is scored."""
    items, general = load_general()
    asked = [Conversation((Message("user", item.question),), item.id) for item in items]
    answers = completer.complete(asked, Sampling(max_tokens=config.max_tokens))
    rows = [
        _row(
            item_id=item.id,
            set="general",
            category=item.category,
            question=item.question,
            reference=" | ".join(item.answers),
            answer=answer.text,
            finish_reason=answer.finish_reason,
            num_tokens=len(answer.token_ids) or None,
            right=is_right(item, answer.text),
        )
        for item, answer in zip(items, answers, strict=True)
    ]
    held_out = held_out_texts(dataset, corpus, config.max_held_out_characters) if dataset and corpus else []
    texts = [
        (name, f"{name} {number}", piece)
        for name, whole in (("general_text", general), ("held_out", held_out))
        for number, text in enumerate(whole)
        for piece in pieces(text, config.piece_characters)
    ]
    scores = scorer.score([""] * len(texts), [piece for _, _, piece in texts])
    for number, ((name, text, _), score) in enumerate(zip(texts, scores, strict=True)):
        (logprob,) = finite(f"{name}-{number}", [score.logprob])
        scored = {"num_tokens": score.num_tokens, "logprob": logprob, "num_bytes": score.num_bytes}
        rows.append(_row(item_id=f"{name}-{number}", set=name, cluster=text, **scored))
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows))


def compare(base: Predictions, tuned: Predictions, *, num_resamples: int, seed: int) -> Forgetting:
    right = [(b["right"], t["right"]) for b, t in _paired(base.rows, tuned.rows, "general")]
    text = _paired(base.rows, tuned.rows, "general_text")
    num_bytes = [b["num_bytes"] for b, _ in text]
    clusters = [b.get("cluster") or b["item_id"] for b, _ in text]  # measured by an older version: every piece is its own
    bits = [(b["logprob"] - t["logprob"]) / math.log(2) for b, t in text]  # tuned - base: -log2 p rises as p falls
    lost, won = right.count((True, False)), right.count((False, True))
    return Forgetting(
        bpb_base=bits_per_byte([b["logprob"] for b, _ in text], num_bytes),
        bpb_tuned=bits_per_byte([t["logprob"] for _, t in text], num_bytes),
        bpb=bootstrap_ratio(bits, num_bytes, clusters=clusters, num_resamples=num_resamples, seed=seed),
        num_items=len(right),
        right_base=sum(b for b, _ in right),
        right_tuned=sum(t for _, t in right),
        right_to_wrong=lost,
        wrong_to_right=won,
        p_value=mcnemar_exact(lost, won),
        num_texts=len(set(clusters)),
    )


@recipe
def task_forgetting(config: TaskForgettingConfig, *, stages: tuple[Predictions, ...], run: Run) -> Predictions:
    """`stages` are predictions of the same tasks by two or more models, in the order of training. One row per task."""
    labels = model_labels(stages)
    by_stage: dict[str, list[Predictions]] = {}
    for label, one in zip(labels, stages, strict=True):
        by_stage.setdefault(label, []).append(one)
    changes = task_changes(by_stage, num_resamples=config.num_resamples, seed=run.seed_for("bootstrap"))
    corrected = holm({change.task: change.p_value for change in changes})
    rows = [{**asdict(change), "p_holm": corrected[change.task], "stages": list(by_stage)} for change in changes]
    mean = sum(change.forgetting.estimate for change in changes) / len(changes)
    facts = {"stages": list(by_stage), "mean_forgetting": mean, "backward_transfer": _backward(changes, by_stage, config.trained)}
    facts["forgotten"] = [c.task for c in changes if c.forgetting.above_zero]
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)


def task_changes(stages: Mapping[str, Sequence[Predictions]], *, num_resamples: int = 10_000, seed: int = 0) -> list[TaskChange]:
    """`stages` by name, in order, each with its predictions of every task. Refuses stages that were measured on other tasks or items."""
    if len(stages) < 2:
        raise UsageError(f"Forgetting needs two stages or more, not {len(stages)}.", fix="Measure the model before training too.")
    labels = [name for name, own in stages.items() for _ in own]
    tasks = join([one for own in stages.values() for one in own], labels)
    return [_task_change(same, list(stages), num_resamples, seed) for same in tasks]


def _task_change(same: SameItems, stages: Sequence[str], num_resamples: int, seed: int) -> TaskChange:
    if missing := [stage for stage in stages if same.of(stage) is None]:
        raise UsageError(f"{same.task} was not measured after {missing[0]}.", fix="Measure every stage on every task.")
    sign = 1.0 if same.is_higher_better(same.primary) else -1.0
    values_LN = np.stack([sign * same.values(stage, same.primary) for stage in stages])
    weights_N = same.weights(same.primary)
    scores_L = values_LN @ weights_N / weights_N.sum()
    best = int(scores_L[:-1].argmax())
    dropped_N = values_LN[best] - values_LN[-1]
    sums, weights = (dropped_N * weights_N).tolist(), weights_N.tolist()
    interval = bootstrap_ratio(sums, weights, clusters=same.clusters, num_resamples=num_resamples, seed=seed)
    assert math.isclose(interval.estimate, forgetting(scores_L[:, None].tolist())[0], abs_tol=1e-9)
    lost, won = int((dropped_N > 0).sum()), int((dropped_N < 0).sum())
    scores = tuple(scores_L.tolist())
    return TaskChange(same.task, same.primary, len(dropped_N), scores, stages[best], interval, lost, won, mcnemar_exact(lost, won))


def _backward(changes: Sequence[TaskChange], stages: Mapping[str, Any], trained: Sequence[str]) -> float | None:
    if not trained:
        return None
    by_task = {change.task: change.scores for change in changes}
    if len(trained) != len(stages) or not set(trained) <= by_task.keys():
        raise UsageError(
            f"`trained` names {len(trained)} tasks ({', '.join(trained)}) for {len(stages)} stages; measured were {', '.join(by_task)}.",
            fix="Name for each stage the task that it trained, and measure all of them.",
        )
    return backward_transfer([[by_task[task][stage] for task in trained] for stage in range(len(stages))])


def held_out_bpb(predictions: Predictions) -> float | None:
    """Bits per byte on documents never trained on; None when none were scored."""
    rows = [row for row in predictions.rows if row["set"] == "held_out"]
    return bits_per_byte([r["logprob"] for r in rows], [r["num_bytes"] for r in rows]) if rows else None


def held_out_texts(dataset: Dataset, corpus: Corpus, most_characters: int) -> list[str]:
    """Passages of the documents that the dataset kept for `generalisation`, spread evenly over them up to `most_characters`."""
    sources = (span.document_id for row in dataset.split("generalisation") for span in row.sources)
    documents = set(dataset.manifest.facts.get("held_out_documents") or sources)
    passages = [p.text for p in corpus.passages_in(documents) if p.text.strip()]
    every = max(1, math.ceil(sum(map(len, passages)) / max(most_characters, 1)))
    return passages[::every]


def pieces(text: str, most_characters: int) -> Iterator[str]:
    """`text` in stretches of at most `most_characters`, cut after a paragraph, else a line, else a word. Joined, they are the text."""
    while len(text) > most_characters:
        cut = most_characters
        for boundary in ("\n\n", "\n", " "):
            found = text.rfind(boundary, most_characters // 2, most_characters)
            if found >= 0:
                cut = min(found + len(boundary), most_characters)
                break
        yield text[:cut]
        text = text[cut:]
    if text:
        yield text


def _paired(base: Rows, tuned: Rows, name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    base, tuned = [r for r in base if r["set"] == name], [r for r in tuned if r["set"] == name]
    if [r["item_id"] for r in base] != [r["item_id"] for r in tuned]:
        raise UsageError(f"Base and tuned model were measured on different rows of `{name}`.", fix="Measure both again with `--fresh`.")
    return list(zip(base, tuned, strict=True))


_COLUMNS = (
    "item_id", "set", "category", "question", "reference", "answer", "finish_reason", "num_tokens", "right",
    "logprob", "num_bytes", "cluster",
)


def _row(**values: Any) -> dict[str, Any]:
    return {column: values.get(column) for column in _COLUMNS}
