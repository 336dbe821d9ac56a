"""Which items of a task stand in what a model was trained on? And what is its score on those that do not?

contamination     every item against every Dataset and Corpus in the model's lineage, found through the manifests: one row per item
clean_and_dirty   the scores of a model's Predictions on clean and on dirty items apart, with intervals; `compare_models` shows them

An item is looked for twice: its question alone, and its question with the right answer. It is dirty when a run of 13 words is shared; a
question of fewer words, when the whole of it is. As a task the rows are `contamination of NAME`, with the metric `dirty` (0 or 1, less is
better; null where there are too few words to tell, or nothing to look in).

Source     Brown et al. 2020, arXiv:2005.14165, appendix C (13-grams; clean subsets; frequent n-grams are left out)
We differ  the training data is the model's own, by lineage, not a corpus that someone named. Whole items are never removed from anything
Limits     a paraphrase or a translation is not found. What a base model read before it came here is not in its lineage: the facts name
           such models
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from mygpt.artifacts.corpus import Corpus
from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.lineage import FamilyTree, why
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.artifacts.store import Store
from mygpt.artifacts.task import Item, Task
from mygpt.core.config import Config
from mygpt.core.digest import digest_value
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.paired_difference import Resampling, difference, score
from mygpt.evaluate.same_items import FEWEST_TO_COMPARE, SameItems, join
from mygpt.guard.overlap import NgramIndex, Overlap
from mygpt.metrics.bootstrap import Interval
from mygpt.metrics.words import words

_SAMPLE_CHARACTERS = 300


class ContaminationConfig(Config):
    n: PositiveInt = 13  # words
    min_words: PositiveInt = 5  # a shorter text stands everywhere, and says nothing
    dirty_share: Annotated[float, Field(ge=0, le=1)] = 0.0  # of an item's words that must be shared; 0: any run of n
    most_items: PositiveInt = 10  # n-grams that more items share are the task's template
    splits: tuple[str, ...] = ("train",)  # of each Dataset; all of them where it has none of these


@dataclass(frozen=True)
class Ancestry:
    """What a model learnt from, as far as the manifests know."""

    data: tuple[FamilyTree, ...]  # datasets and corpora, nearest first
    missing: tuple[FamilyTree, ...]  # named, but not in this home, or damaged
    unknown: tuple[str, ...]  # models whose own training data no manifest names


@recipe
def contamination(config: ContaminationConfig, *, task: Task, model: Model, adapter: Adapter | None = None, run: Run) -> Predictions:
    """One row per item: whether it stands in what the model, or the adapter on it, was trained on, how much of it, and where."""
    store = Store(run.home)
    family = ancestry(store, [made for made in (adapter, model) if made is not None])
    items = task.items
    asked = [item.question for item in items]
    solved = [f"{item.question} {_right_answer(item)}".strip() for item in items]
    short = [question for question in asked if len(words(question)) < config.n]
    index = NgramIndex.build([*solved, *short], config.n, most_texts=config.most_items)
    found: list[list[tuple[str, Overlap, Overlap]]] = [[] for _ in items]
    for node in family.data:
        progress = run.progress(None, "characters")
        met = index.met_in(_counted(training_texts(store, node, config.splits), progress.advance))
        for place in range(len(items)):
            found[place].append((node.id, met.overlap(asked[place]), met.overlap(solved[place])))
    rows = [_row(item, seen, config) for item, seen in zip(items, found, strict=True)]
    for node in family.missing:
        run.warn(f"{node.id} is {node.note}: no item was looked for in it.")
    if not family.data:
        run.warn(f"The lineage of {model.id} names no training data: nothing could be checked.")
    name = task.manifest.facts.get("task", task.name)
    facts = {
        "task": f"contamination of {name}",
        "of_task": name,
        "version": task.version,
        "form": "overlap",
        "task_content": digest_value([task.digest, config.model_dump(mode="json")]),
        "primary": "dirty",
        "metrics": ["dirty"],
        "higher_is_better": {"dirty": False},
        "chance": None,
        "model": {"model": model.digest, "adapter": adapter.digest if adapter else None},
        "dirty": sum(row["dirty"] is True for row in rows),
        "clean": sum(row["dirty"] is False for row in rows),
        "undecided": sum(row["dirty"] is None for row in rows),
        "checked": {node.id: node.argument for node in family.data},
        "dirty_by_source": dict(Counter(source for row in rows if row["dirty"] for source in row["sources"])),
        "unchecked": {node.id: node.note for node in family.missing},
        "unknown_training_data": list(family.unknown),
    }
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)


def ancestry(store: Store, made: Iterable[Model | Adapter]) -> Ancestry:
    """Every Dataset and Corpus that these, or whatever helped to make them, came from."""
    data: dict[str, FamilyTree] = {}
    missing: dict[str, FamilyTree] = {}
    models: dict[str, bool] = {}  # id: whether any training data is known

    def visit(node: FamilyTree) -> bool:
        is_data = node.kind in (Dataset.kind, Corpus.kind)
        if node.note == "shown above":
            return is_data or models.get(node.id, False)
        if node.note or is_data:
            (missing if node.note else data).setdefault(node.id, node)
        below = [visit(child) for child in node.children]
        known = is_data or any(below)
        if node.kind == Model.kind:
            models[node.id] = known
        return known

    for one in made:
        visit(why(store, one.manifest))
    return Ancestry(tuple(data.values()), tuple(missing.values()), tuple(id for id, known in models.items() if not known))


def training_texts(store: Store, node: FamilyTree, splits: tuple[str, ...]) -> Iterator[str]:
    """Rows of a Dataset of any schema, turns joined; documents of a Corpus, whole, so that no run of words is cut where passages meet."""
    if node.kind == Corpus.kind:
        yield from (document.text for document in Corpus.of(store, node.digest).stream_documents())
        return
    dataset = Dataset.of(store, node.digest)
    for split in [name for name in dataset.splits if name in splits] or dataset.splits:
        yield from dataset.learnable_texts(split)


@dataclass(frozen=True)
class Part:
    """A score on some of the items; no interval for fewer than two of them."""

    num_items: int
    score: Interval | None
    difference: Interval | None = None  # from the baseline, on the same items


@dataclass(frozen=True)
class CleanAndDirty:
    metric: str
    all: Part
    clean: Part
    dirty: Part
    undecided: Part  # too few words to tell, or nothing to look in


def clean_and_dirty(predictions: Predictions, *contamination: Predictions, metric: str = "", seed: int = 0) -> CleanAndDirty:
    """`predictions` of one task and `contamination` of the same, joined by item; items of one cluster are drawn together."""
    facts = predictions.manifest.facts
    metric = metric or str(facts.get("primary", ""))
    if metric not in (predictions.rows or [{}])[0]:
        raise UsageError(f"{predictions.id} has no column `{metric}`.", fix="Name one of its metrics.")
    [task] = join([predictions], ["model"])
    return apart(task, "model", metric, item_states(task, contamination), Resampling(seed=seed))


def item_states(task: SameItems, contamination: Sequence[Predictions]) -> dict[str, bool | None]:
    """By item: True where any of the checked lineages has it, False where all that could tell have it not, None where none could tell."""
    found: dict[str, bool | None] = dict.fromkeys(task.item_ids)
    item_of = {row["item_id"]: _of(row) for row in task.models[0].rows}  # several answers may have been drawn to one item
    for one in contamination:
        told = one.manifest.facts
        if (told.get("of_task"), str(told.get("version"))) != (task.task, task.version):
            what = f"{task.models[0].predictions.id} is of task {task.task} version {task.version}, "
            what += f"{one.id} of {told.get('of_task')} version {told.get('version')}."
            raise UsageError(what, fix="Check the contamination of the same task and version.")
        dirty = {row["item_id"]: row["dirty"] for row in one.rows}
        unknown = [item for item in found if item_of[item] not in dirty]
        if unknown:
            count = f"{len(unknown)} item{'s' * (len(unknown) != 1)}"
            what = f"{count} of {task.models[0].predictions.id} cannot be found in {one.id}, for example `{unknown[0]}`."
            raise UsageError(what, fix="Check the contamination of the same items.")
        found = {item: _either(before, dirty[item_of[item]]) for item, before in found.items()}
    return found


def _either(one: bool | None, other: bool | None) -> bool | None:
    return True if True in (one, other) else False if False in (one, other) else None


def apart(
    task: SameItems,
    label: str,
    metric: str,
    states: Mapping[str, bool | None],
    resampling: Resampling,
    *,
    baseline: str = "",
) -> CleanAndDirty:
    """One model's score on all, clean, dirty and undecided items, and how far it is from the baseline on the same ones."""

    def part(*wanted: bool | None) -> Part:
        kept = task.keeping({item for item, state in states.items() if state in wanted})
        own = kept.of(label)
        assert own is not None
        num_scored = sum(row[metric] is not None for row in own.rows)
        if num_scored < FEWEST_TO_COMPARE:
            return Part(num_scored, None)
        paired = bool(baseline) and label != baseline and kept.of(baseline) is not None
        away = difference(kept, label, baseline, metric, resampling).interval if paired else None
        return Part(num_scored, score(kept, label, metric, resampling).interval, away)

    return CleanAndDirty(metric, part(True, False, None), part(False), part(True), part(None))


def _of(row: Mapping[str, Any]) -> str:
    """The item, also of one of several answers drawn to it."""
    return str(row.get("sampled_from") or row["item_id"])


def _right_answer(item: Item) -> str:
    if item.choices and item.gold is not None:
        return item.choices[item.gold]
    return item.references[0] if item.references else ""


def _row(item: Item, seen: list[tuple[str, Overlap, Overlap]], config: ContaminationConfig) -> dict[str, Any]:
    def share(overlap: Overlap) -> float:
        return overlap.share if overlap.num_words >= config.min_words else 0.0

    def is_dirty(asked: Overlap, solved: Overlap) -> bool:
        return max(share(asked), share(solved)) > 0 and max(share(asked), share(solved)) >= config.dirty_share

    long_enough = len(words(f"{item.question} {_right_answer(item)}")) >= config.min_words
    worst = max(seen, key=lambda one: (share(one[1]) + share(one[2]), one[2].longest_run), default=None)
    sources = [source for source, asked, solved in seen if is_dirty(asked, solved)]
    longest = max(worst[1:], key=lambda overlap: overlap.longest_run) if worst and sources else None
    return {
        "item_id": item.id,
        "dirty": bool(sources) if long_enough and seen else None,
        "question_share": share(worst[1]) if worst else None,
        "share": share(worst[2]) if worst else None,
        "longest_run": longest.longest_run if longest else 0,
        "source": worst[0] if worst and sources else "",
        "sources": sources,
        "sample": longest.longest_text[:_SAMPLE_CHARACTERS] if longest else "",
        "question": item.question,
        "cluster": item.cluster,
    }


def _counted(texts: Iterable[str], advance: Callable[[int], None]) -> Iterator[str]:
    for text in texts:
        yield text
        advance(len(text))
