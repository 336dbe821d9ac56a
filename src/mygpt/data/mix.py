"""Several datasets as one, for one model that does several tasks: mixed by temperature, with replay against forgetting.

The rates are those of `training/mixing`. Replay has a share of its own, whatever the tasks' sizes. Every row keeps in its facts which task
it is of, in all splits, so that each task can be measured apart.
"""

from collections import Counter
from dataclasses import replace as with_changes
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from mygpt.artifacts.dataset import Conversation, Dataset, conversation_facts, write_conversations
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.training.mixing import mixed, mixing_rates, shared_out


class MixConfig(Config):
    temperature: PositiveFloat = 1.0  # 1: by size; larger: small tasks come more often
    limit: PositiveInt | None = None  # rows that the largest tasks count for at most
    rows: PositiveInt | None = None  # of the mixture; default: as many as the tasks and the replay have together
    replay_share: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of the mixture


@recipe
def mix(config: MixConfig, *, datasets: tuple[Dataset, ...], replay: Dataset | None = None, run: Run) -> Dataset:
    """Split `train`: the tasks' training rows, mixed. Other splits: all rows of all tasks."""
    names = task_names(datasets)
    tasks = [dataset.split("train") for dataset in datasets]
    for dataset, rows in zip(datasets, tasks, strict=True):
        if not rows:
            raise UsageError(f"{dataset.id} has no rows to train on.", fix="Leave it out of the mixture.")
    rates = mixing_rates([len(rows) for rows in tasks], temperature=config.temperature, limit=config.limit)
    if replay is not None:
        names, tasks = [*names, "replay"], [*tasks, replay.split("train")]
        if not tasks[-1]:
            raise UsageError(f"{replay.id} has no rows.", fix="Make it again, or mix without `--replay`.")
        rates = [*(rate * (1 - config.replay_share) for rate in rates), config.replay_share]
    sizes = [len(rows) for rows in tasks]
    counts = shared_out(config.rows or sum(sizes), rates)
    order = run.random("mixture")
    train = [_of_task(tasks[task][row], names[task]) for task, row in mixed(sizes, counts, order=order)]
    splits = {"train": train}
    for split in sorted({split for dataset in datasets for split in dataset.splits} - {"train"}):
        splits[split] = [_of_task(row, name) for dataset, name in zip(datasets, names, strict=False) for row in dataset.split(split)]
    seen = {name: {"rows": size, "in_mixture": count} for name, size, count in zip(names, sizes, counts, strict=True)}
    for name, (size, count) in zip(names, zip(sizes, counts, strict=True), strict=True):
        run.note(f"{name}: {count} of {sum(counts)} rows, each of its {size} seen {count / size:.1f} times.")
    facts = {**conversation_facts(splits), "tasks": seen}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=facts)


def task_names(datasets: tuple[Dataset, ...]) -> list[str]:
    """The datasets' names; with a number behind it where two have the same."""
    times, seen, names = Counter(dataset.name for dataset in datasets), Counter[str](), list[str]()
    for dataset in datasets:
        seen[dataset.name] += 1
        names.append(f"{dataset.name}-{seen[dataset.name]}" if times[dataset.name] > 1 else dataset.name)
    return names


def _of_task(row: Conversation, name: str) -> Conversation:
    return with_changes(row, facts={**row.facts, "task": name})
