"""Rows of a user's file as the splits `train` and `test`: equal rows once, equal texts on one side."""

import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from mygpt.artifacts.dataset import Preference
from mygpt.core.errors import UsageError
from mygpt.core.run import Run

R = TypeVar("R", bound=Any)  # a row with an `id`


def train_and_test(
    rows: Sequence[R], held_out: Sequence[R] | None, *, share: float, text_of: Callable[[R], Hashable], order: random.Random, run: Run
) -> dict[str, list[R]]:
    """`held_out` is the split `test` where it was given, else `share` of the distinct texts is drawn for it. Order of the file kept.

    What stands in both given files stays in `test` only, said aloud: a score on texts that were learnt says nothing.
    """
    kept = distinct(rows, run=run)
    if held_out is not None:
        test = distinct(held_out, run=run)
        seen = {text_of(row) for row in test}
        train = [row for row in kept if text_of(row) not in seen]
        if len(train) < len(kept):
            run.warn(f"{len(kept) - len(train)} training rows have a text of the held-out file: they are left out of training.")
    else:
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for place, row in enumerate(kept):
            groups[text_of(row)].append(place)
        texts = list(groups)
        drawn = order.sample(texts, round(share * len(texts)))
        held = {place for text in drawn for place in groups[text]}
        train, test = ([row for place, row in enumerate(kept) if (place in held) == is_test] for is_test in (False, True))
    if not train:
        raise UsageError(f"No row is left to train on ({len(rows)} were read).", fix="Give more rows, or a smaller `held_out_share`.")
    return {"train": train, "test": test}


def distinct(rows: Sequence[R], *, run: Run) -> list[R]:
    """The first of equal rows (their ids aside)."""
    found = {repr(replace(row, id="")): row for row in reversed(rows)}
    if len(found) < len(rows):
        run.warn(f"{len(rows) - len(found)} of {len(rows)} rows stand in the data more than once: each is kept once.")
    return list(reversed(found.values()))


def opening(row: Preference) -> str:
    """How its dialogue begins, white space aside. Kept on one side of a split: later turns of a dialogue repeat its earlier ones."""
    return next((" ".join(m.content.split()) for m in row.prompt if m.role == "user"), "")
