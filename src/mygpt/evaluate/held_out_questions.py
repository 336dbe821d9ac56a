"""The held-out questions of a Dataset as a Task: `knowledge` and `generalisation`, each a slice of it.

One Task and not two: whoever answers is asked everything in one call, a split with a single question is still measured, and a gate has one
name to rule on. Reports keep the slices apart. Questions on one passage are one cluster.
"""

import json
from dataclasses import asdict

from mygpt.artifacts.dataset import Conversation, Dataset
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.task import EARLIER_TURNS, MIN_ITEMS, Item, Task, TaskSettings, write_task
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.core.spread import spread

SETS = ("knowledge", "generalisation")
_VERSION = "1"


class HeldOutConfig(Config):
    max_tokens: int = 64
    max_items: int = 200  # of each set; more cost minutes per arm and narrow the interval little


@recipe
def held_out_questions(config: HeldOutConfig, *, dataset: Dataset, run: Run) -> Task:
    """Each asked as the dataset asks it; token F1 against its answer decides."""
    items = [_item(name, row) for name in SETS for row in spread(dataset.split(name), config.max_items)]
    settings = TaskSettings(
        name="held_out_questions", version=_VERSION, form="generate", primary="f1", prompt="{question}", max_tokens=config.max_tokens
    )
    return publish(Task, run, lambda folder: write_task(folder, items, settings))


def are_enough(dataset: Dataset) -> bool:
    """Whether there are as many held-out questions as a Task needs."""
    return sum(len(dataset.split(name)) for name in SETS) >= MIN_ITEMS


def _item(name: str, row: Conversation) -> Item:
    place = row.facts.get("passage") or row.id or row.question  # questions of one passage are not independent
    earlier = {EARLIER_TURNS: json.dumps([asdict(m) for m in row.prompt[:-1]])} if len(row.prompt) > 1 else {}
    return Item(row.id or row.question, row.question, references=(row.answer,), facts={"slice": name, "cluster": place, **earlier})
