"""Typing errors: what is changed, what never is, and that the same seed makes the same ones."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mygpt.artifacts.task import Item, Task
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.typos import TyposConfig, typos, with_typos
from tests.evaluate.test_harness import task_of


class First(random.Random):
    """Always chooses the first kind (swap) at the first place."""

    def random(self) -> float:
        return 0.0

    def randrange(self, *_: int) -> int:  # type: ignore[override]
        return 1

    def choice(self, options: list[str]) -> str:  # type: ignore[override]
        return options[0]


def test_by_hand() -> None:
    """The second and third letter change places; words under four letters, with digits, or among the kept ones stay."""
    text = "When does the ferry leave for Harbour2 on Sunday?"
    assert with_typos(text, 1.0, First(), kept="Sunday Monday") == "Wehn deos the frery laeve for Harbour2 on Sunday?"


@given(st.text(alphabet="abcdef 0123\n.é", max_size=60), st.integers(0, 99))
def test_words_keep_their_first_letter_and_their_number(text: str, seed: int) -> None:
    changed = with_typos(text, 0.5, random.Random(seed))
    assert [w[:1] for w in changed.split()] == [w[:1] for w in text.split()]
    assert [c for c in changed if not c.isalpha()] == [c for c in text if not c.isalpha()]
    assert with_typos(text, 0.5, random.Random(seed)) == changed


def test_the_variant(run: Run) -> None:
    items = [Item(str(i), f"Which harbour does ferry number {i} leave from, north or south?", ("north", "south"), i % 2) for i in range(40)]
    made = typos(TyposConfig(rate=0.5), task=task_of(run, items), run=run)
    assert isinstance(made, Task)
    assert (made.settings.name, made.settings.variant_of, made.version) == ("made_typos", "made", "1")
    assert [(i.id, i.choices, i.gold) for i in made.items] == [(i.id, i.choices, i.gold) for i in items]
    assert all("north or south" in i.question for i in made.items)
    changed = sum(
        a != b for i, j in zip(items, made.items, strict=True) for a, b in zip(i.question.split(), j.question.split(), strict=True)
    )
    assert 0.4 < changed / (40 * 6) < 0.6  # six words of each may change; a double letter swapped is no change
    with pytest.raises(UsageError, match=r"The rate 0.0 is no share"):
        typos(TyposConfig(rate=0.0), task=task_of(run, items), run=run)
