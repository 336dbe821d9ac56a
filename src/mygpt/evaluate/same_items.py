"""Predictions of several models brought together by task, item by item: what a comparison and a gate stand on.

Each Predictions artefact is one model on one task. Rows are joined by `item_id`. What cannot be compared is refused, with the values:
another version of the task, other items, other questions under the same ids, an id given twice, fewer than two items, a score that is no
number. Nothing is dropped to make two sets fit.

An item may have no score on purpose (null): sycophancy is about answers that were right at first, groundedness about answers that claim
something. Such items are left out for all models alike, and counted.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mygpt.artifacts.manifest import SHORT
from mygpt.artifacts.report import Predictions
from mygpt.artifacts.store import Store
from mygpt.core.digest import canonical_json, digest_value
from mygpt.core.errors import UsageError

FEWEST_TO_COMPARE = 2
_MEASURE_AGAIN = "Measure all models with one version of the task and the same settings."
_MUST_AGREE = {
    "version": "versions",
    "form": "forms",
    "primary": "deciding metrics",
    "task_content": "contents under one version (items, prompt or scoring)",
}
_WEIGHTS = {"bits_per_byte": "num_bytes", "kl_per_token": "num_tokens"}  # of whole texts: items count by their length
_OVERLAP = ("rouge", "bleu", "chrf")
_OVERLAP_OF_SUMMARIES = ("f1",)


@dataclass(frozen=True)
class Measured:
    """One model on one task."""

    label: str
    predictions: Predictions
    rows: Sequence[Mapping[str, Any]]  # in the order of the task's items

    def count(self, column: str, value: Any) -> int:
        return sum(row.get(column) == value for row in self.rows)


@dataclass(frozen=True)
class SameItems:
    """One task, as several models did it."""

    task: str
    version: str
    form: str
    primary: str  # the metric that decides
    metrics: tuple[str, ...]
    higher_is_better: Mapping[str, bool]
    chance: float | None
    models: tuple[Measured, ...]  # in the order given
    unscored: Mapping[str, int] = field(default_factory=dict)  # by model: items without a score, left out by `scored`
    answer: str = ""  # the kind of answer of a `generate` task: `text`, `summary`, ...

    @property
    def item_ids(self) -> list[str]:
        return [row["item_id"] for row in self.models[0].rows]

    @property
    def clusters(self) -> list[str]:
        """Where each item comes from; an item without a cluster is its own."""
        return [row.get("cluster") or row["item_id"] for row in self.models[0].rows]

    @property
    def num_clusters(self) -> int:
        return len(set(self.clusters))

    def of(self, label: str) -> Measured | None:
        return next((model for model in self.models if model.label == label), None)

    def is_overlap(self, metric: str) -> bool:
        """Whether this counts shared words only. Token F1 decides on short answers, as in SQuAD; of a free text it is ROUGE-1 by another
        name."""
        return is_overlap(metric) or (self.answer == "summary" and metric in _OVERLAP_OF_SUMMARIES)

    def is_higher_better(self, metric: str) -> bool:
        if metric not in self.higher_is_better:
            known = ", ".join(self.higher_is_better) or "none"
            raise UsageError(
                f"{self.task} does not say whether more `{metric}` is better or worse (it says so for: {known}).",
                fix="Choose one of its metrics, or measure again with a task that says so.",
            )
        return self.higher_is_better[metric]

    def scored(self, metric: str, *labels: str) -> "SameItems":
        """The items that these models (default: all) have a score on, and these models alone. Raises UsageError when too few are left."""
        models = [model for model in self.models if not labels or model.label in labels]
        for model in models:
            if not any(metric in row for row in model.rows):
                what = f"{model.label} has no `{metric}` on {self.task}."
                raise UsageError(what, fix=f"Its metrics: {', '.join(self.metrics) or 'none recorded'}.")
        without = {model.label: [row.get(metric) is None for row in model.rows] for model in models}
        kept = [i for i, missing in enumerate(zip(*without.values(), strict=True)) if not any(missing)]
        if len(kept) < FEWEST_TO_COMPARE:
            counts = ", ".join(f"{label} {missing.count(False)}" for label, missing in without.items())
            what = f"Of {len(self.item_ids)} items of {self.task}, {len(kept)} have a `{metric}` for every model (scored: {counts})."
            raise UsageError(what, fix="Measure more items, or choose another metric.")
        chosen = tuple(replace(model, rows=[model.rows[i] for i in kept]) for model in models)
        return replace(self, models=chosen, unscored={label: missing.count(True) for label, missing in without.items()})

    def keeping(self, item_ids: Collection[str]) -> "SameItems":
        """These items alone, of all models."""
        kept = [place for place, item in enumerate(self.item_ids) if item in item_ids]
        return replace(self, models=tuple(replace(model, rows=[model.rows[i] for i in kept]) for model in self.models))

    def values(self, label: str, metric: str) -> np.ndarray:
        """(N,) scores, of `scored` items. Raises UsageError for scores that are no numbers."""
        model = self.of(label)
        assert model is not None, f"{label} was not measured on {self.task}"
        broken = [row["item_id"] for row in model.rows if not _is_number(row.get(metric))]
        if broken:
            raise UsageError(
                f"{len(broken)} of {len(model.rows)} items have no `{metric}` for {label} on {self.task}: {_listed(broken)}.",
                fix="Measure them again; leaving them out would change what is compared.",
            )
        return np.asarray([float(row[metric]) for row in model.rows])

    def weights(self, metric: str) -> np.ndarray:
        """(N,) what each item counts: its bytes where the metric is per byte, else 1."""
        column = _WEIGHTS.get(metric)
        rows = self.models[0].rows
        if column is None or not all(_is_number(row.get(column)) for row in rows):
            return np.ones(len(rows))
        return np.asarray([float(row[column]) for row in rows])


def is_of_a_task(facts: Mapping[str, Any]) -> bool:
    """Whether predictions can be compared: there are others, of contamination say, that cannot."""
    return "task" in facts and "primary" in facts


def is_overlap(metric: str) -> bool:
    """ROUGE, BLEU, chrF: shared n-grams. They rank texts of one task and mean nothing across tasks; they never decide alone. What else is
    one on some tasks only, `SameItems.is_overlap` knows."""
    return any(name in metric.lower() for name in _OVERLAP)


def join(predictions: Sequence[Predictions], labels: Sequence[str] = ()) -> list[SameItems]:
    """By task, in the order in which tasks first appear. `labels` name the model of each Predictions; default: what its facts say."""
    labels = tuple(labels) or model_labels(predictions)
    if len(labels) != len(predictions):
        raise UsageError(f"{len(labels)} labels for {len(predictions)} predictions.", fix="Give one label for each.")
    by_task: dict[str, list[tuple[str, Predictions]]] = {}
    for label, one in zip(labels, predictions, strict=True):
        if not is_of_a_task(one.manifest.facts):
            what = f"{one.id} does not say which task it is of, and by which metric that is decided."
            raise UsageError(what, fix="Compare predictions of tasks.")
        by_task.setdefault(str(one.manifest.facts["task"]), []).append((label, one))
    return [_joined(task, group) for task, group in by_task.items()]


def _joined(task: str, group: list[tuple[str, Predictions]]) -> SameItems:
    _refuse_twice(task, group)
    for fact, what in _MUST_AGREE.items():
        said = {label: str(one.manifest.facts.get(fact))[:SHORT] for label, one in group}
        if len(set(said.values())) > 1:
            values = ", ".join(f"{value} ({label})" for label, value in said.items())
            raise UsageError(f"{task} was measured in different {what}: {values}.", fix=_MEASURE_AGAIN)
    _refuse_other_embedders(task, group)
    first_label, first = group[0]
    rows = _checked_rows(task, first_label, first)
    order = [row["item_id"] for row in rows]
    models = [Measured(first_label, first, rows)]
    for label, one in group[1:]:
        by_id = {row["item_id"]: row for row in _checked_rows(task, label, one)}
        missing, extra = [i for i in order if i not in by_id], [i for i in by_id if i not in set(order)]
        if missing or extra:
            differences = [f"{len(ids)} {what} ({_listed(ids)})" for ids, what in ((missing, "missing"), (extra, "more")) if ids]
            raise UsageError(
                f"On {task}, {label} did {len(by_id)} items and {first_label} {len(order)}: {'; '.join(differences)}.", fix=_MEASURE_AGAIN
            )
        models.append(Measured(label, one, [by_id[i] for i in order]))
        changed = [
            a["item_id"]
            for a, b in zip(rows, models[-1].rows, strict=True)
            if any(a.get(column) != b.get(column) for column in ("question", "reference"))
        ]
        if changed:
            raise UsageError(
                f"On {task}, {len(changed)} items of {label} have another question or reference than those of {first_label}: "
                f"{_listed(changed)}.",
                fix=_MEASURE_AGAIN,
            )
    facts = first.manifest.facts
    return SameItems(
        task=task,
        version=str(facts.get("version")),
        form=str(facts.get("form", "")),
        primary=str(facts.get("primary")),
        metrics=tuple(facts.get("metrics", (facts.get("primary"),))),
        higher_is_better=dict(facts.get("higher_is_better", {})),
        chance=facts.get("chance"),
        models=tuple(models),
        answer=str(facts.get("answer", "")),
    )


def _refuse_twice(task: str, group: list[tuple[str, Predictions]]) -> None:
    for label, count in Counter(label for label, _ in group).items():
        if count > 1:
            ids = ", ".join(one.id for name, one in group if name == label)
            raise UsageError(f"{label} was measured {count} times on {task}: {ids}.", fix="Give one of them, or each its own label.")


def _refuse_other_embedders(task: str, group: list[tuple[str, Predictions]]) -> None:
    """Similarities by different vectors are different measures."""
    used = {label: one.manifest.facts["embedder"] for label, one in group if "embedder" in one.manifest.facts}
    if len({canonical_json(identity) for identity in used.values()}) > 1:
        named = ", ".join(f"{model_name(identity, group[0][1].store)} ({label})" for label, identity in used.items())
        raise UsageError(f"Similarity on {task} was measured by different embedders: {named}.", fix=_MEASURE_AGAIN)


def _checked_rows(task: str, label: str, predictions: Predictions) -> list[dict[str, Any]]:
    rows = predictions.rows
    if len(rows) < FEWEST_TO_COMPARE:
        raise UsageError(
            f"{label} has {len(rows)} items on {task}; a comparison needs {FEWEST_TO_COMPARE} at the very least.",
            fix="Measure more items; below 30 every interval is unreliable.",
        )
    twice = [item for item, count in Counter(row["item_id"] for row in rows).items() if count > 1]
    if twice:
        raise UsageError(
            f"{len(twice)} item ids of {predictions.id} occur more than once: {_listed(twice)}.",
            fix="Give each item its own id in the task; answers drawn for one question share a `cluster` instead.",
        )
    return rows


# -- what a model is called -----------------------------------------------------------------------------------------------


def model_labels(predictions: Sequence[Predictions]) -> tuple[str, ...]:
    """The model of each, in a few words; two models that would be called the same are told apart by their digests."""
    identities = [one.manifest.facts.get("model", one.name) for one in predictions]
    named = {canonical_json(identity): model_name(identity, one.store) for identity, one in zip(identities, predictions, strict=True)}
    often = Counter(named.values())
    shown = {key: name if often[name] == 1 else f"{name} ({digest_value(key)[:6]})" for key, name in named.items()}
    return tuple(shown[canonical_json(identity)] for identity in identities)


def model_name(identity: Any, store: Store) -> str:
    """In a few words: the stored names behind its digests, else its own name and address."""
    if isinstance(identity, Mapping):
        parts = [_name_of(str(identity[key]), store) for key in ("model", "adapter") if identity.get(key)]
        name = identity.get("name") or " + ".join(parts)
        address = f" at {identity['address']}" if identity.get("address") else ""
        inner = next((value for value in identity.values() if isinstance(value, Mapping)), None)
        if name or address:
            return f"{name}{address}".strip()
        return model_name(inner, store) if inner is not None else digest_value(identity)[:8]
    return _name_of(str(identity), store)


def _name_of(reference: str, store: Store) -> str:
    manifest = store.get(reference)  # None for what is no digest
    return manifest.name if manifest else reference[:40]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)  # True and False are 1 and 0


def _listed(ids: Iterable[str], most: int = 5) -> str:
    ids = list(ids)
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")
