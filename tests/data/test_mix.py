"""Several datasets as one: how many rows of which, the task in every row, the same again with the same seed."""

from collections import Counter
from typing import Any

import pytest

from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.data.mix import MixConfig, mix


class MadeConfig(Config):
    name: str
    rows: int
    test_rows: int = 0


@recipe
def made(config: MadeConfig, *, run: Run) -> Dataset:
    def row(i: int) -> Conversation:
        return Conversation((Message("user", f"{config.name} {i}?"), Message("assistant", "Yes.")), str(i), facts={"form": "yes"})

    splits = {"train": [row(i) for i in range(config.rows)], "test": [row(-i - 1) for i in range(config.test_rows)]}
    return publish(Dataset, run, lambda f: write_conversations(f, splits), facts=conversation_facts(splits), name=config.name)


def dataset(name: str, rows: int, run: Run, *, test_rows: int = 0) -> Dataset:
    return made(MadeConfig(name=name, rows=rows, test_rows=test_rows), run=run)


def mixture(run: Run, *datasets: Dataset, replay: Dataset | None = None, **settings: Any) -> Dataset:
    return mix(MixConfig(**settings), datasets=datasets, replay=replay, run=run)


def test_by_hand(run: Run) -> None:
    """4 and 16 rows at temperature 2 are mixed 1 : 2; of 30 rows a tenth is replay, so 9, 18 and 3."""
    small, large, general = dataset("small", 4, run, test_rows=2), dataset("large", 16, run, test_rows=1), dataset("general", 5, run)
    found = mixture(run, small, large, replay=general, temperature=2, rows=30)
    rows = found.split("train")
    assert Counter(row.facts["task"] for row in rows) == {"small": 9, "large": 18, "replay": 3}
    assert all(row.facts["form"] == "yes" and row.question.startswith(row.facts["task"].replace("replay", "general")) for row in rows)
    assert sorted(Counter(r.question for r in rows if r.facts["task"] == "small").values()) == [2, 2, 2, 3]
    assert Counter(row.facts["task"] for row in found.split("test")) == {"small": 2, "large": 1}
    assert found.manifest.facts["tasks"]["large"] == {"rows": 16, "in_mixture": 18}
    assert [i.name for i in found.manifest.inputs["datasets"]] == ["small", "large"]


def test_by_size_every_row_comes_once(run: Run) -> None:
    found = mixture(run, dataset("a", 3, run), dataset("b", 7, run))
    assert Counter(row.question for row in found.split("train")) == {
        f"{n} {i}?": 1 for n, size in (("a", 3), ("b", 7)) for i in range(size)
    }


def test_order_depends_on_the_seed_alone(run: Run) -> None:
    sets = (dataset("a", 3, run), dataset("b", 7, run))
    first = [row.question for row in mixture(run, *sets).split("train")]
    run.fresh = True
    assert [row.question for row in mixture(run, *sets).split("train")] == first
    run.seed = 1
    assert [row.question for row in mixture(run, *sets).split("train")] != first


def test_two_of_one_name_and_an_empty_one(run: Run) -> None:
    found = mixture(run, dataset("a", 2, run), dataset("a", 3, run))
    assert set(found.manifest.facts["tasks"]) == {"a-1", "a-2"}
    with pytest.raises(UsageError, match=r"dataset/none-\w+ has no rows to train on"):
        mixture(run, dataset("a", 2, run), dataset("none", 0, run))
