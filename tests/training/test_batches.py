"""Every example once, budgets that hold, and batches whose padding nobody sees."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
import torch

from mygpt.lm.chat import Rendered
from mygpt.training.batches import Ahead, Batch, batch_of, cut_by_tokens, plan_epoch, worth_compiling
from tests.training import tiny

LENGTHS = random.Random(5).choices(range(3, 90), k=200)


def rendered(ids: list[int], trained: list[bool]) -> Rendered:
    return Rendered(tuple(ids), tuple(trained), ())


def test_groups_by_hand() -> None:
    # padded sizes at a budget of 12: 2x3, then 3x5=15 > 12 begins anew: 5 alone with 6 makes 2x6=12, then 13 is over by itself
    lengths = [3, 2, 5, 6, 13, 1]
    assert cut_by_tokens([0, 1, 2, 3, 4, 5], lengths, 12) == [[0, 1], [2, 3], [4], [5]]
    assert cut_by_tokens([], lengths, 12) == []
    assert cut_by_tokens([4], lengths, 1) == [[4]]  # longer than any budget: alone, not lost


@pytest.mark.parametrize(("step_tokens", "micro_batch_tokens"), [(1024, 2048), (512, 128), (64, 64), (1, 1)])
def test_every_example_once_and_within_budget(step_tokens: int, micro_batch_tokens: int) -> None:
    plan = plan_epoch(LENGTHS, step_tokens=step_tokens, micro_batch_tokens=micro_batch_tokens, order=random.Random(0))
    assert Counter(i for step in plan for micro in step for i in micro) == Counter(range(200))
    assert all(micro for step in plan for micro in step) and all(plan)
    for step in plan:
        rows = [i for micro in step for i in micro]
        assert len(rows) * max(LENGTHS[i] for i in rows) <= step_tokens or len(rows) == 1
        for micro in step:
            assert len(micro) * max(LENGTHS[i] for i in micro) <= micro_batch_tokens or len(micro) == 1


def test_little_padding() -> None:
    """Lengths are within 10 % of each other twice over (noise on both sides), so at most about a fifth of a batch is padding."""
    plan = plan_epoch(LENGTHS, step_tokens=1024, micro_batch_tokens=1024, order=random.Random(0))
    padded = sum(len(micro) * max(LENGTHS[i] for i in micro) for step in plan for micro in step)
    assert sum(LENGTHS) / padded > 0.8
    shuffled = random.Random(0).sample(range(200), 200)
    unsorted = sum(len(g) * max(LENGTHS[i] for i in g) for g in cut_by_tokens(shuffled, LENGTHS, 1024))
    assert sum(LENGTHS) / unsorted < 0.65


def test_same_seed_same_plan_and_epochs_differ() -> None:
    first, again, other = (plan_epoch(LENGTHS, step_tokens=256, micro_batch_tokens=128, order=random.Random(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    neighbours = [{frozenset(i for micro in step for i in micro) for step in plan} for plan in (first, other)]
    assert neighbours[0] != neighbours[1]  # not only the order of steps


def test_batch_by_hand() -> None:
    batch = batch_of([rendered([5, 6, 7], [False, True, True]), rendered([8], [True])], padding_id=9, device=torch.device("cpu"))
    assert batch.ids_BT.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch.trained_BT.tolist() == [[False, True, True], [True, False, False]]
    assert batch.ids_BT.dtype == torch.int64 and batch.trained_BT.dtype == torch.bool
    assert batch.num_tokens == 4


def test_the_next_batch_is_made_ahead() -> None:
    made: list[list[int]] = []

    def make(rows: Sequence[int]) -> Batch:
        made.append(list(rows))
        return batch_of(tiny.examples([3 + i for i in rows]), padding_id=0, device=torch.device("cpu"))

    plan = [[0, 1], [2], [3, 4]]
    batches = Ahead(make, plan)
    for number, rows in enumerate(plan):
        assert batches.take(rows).num_tokens == sum(3 + i for i in rows)
        assert made == plan[: number + 1]
        batches.prepare()
        assert made == plan[: number + 2]
    with pytest.raises(AssertionError, match="another micro-batch"):
        Ahead(make, plan).take([2])


def test_lengths_worth_compiling_by_hand() -> None:
    """The one short row of a plan is no reason to compile a length of its own; nor is a longer length than any row has."""
    ladder = [32, 64, 128]
    assert worth_compiling([128] * 24 + [5], ladder, least_rows=3) == [128]
    assert worth_compiling([100] * 3 + [20] * 3 + [60] * 2, ladder, least_rows=3) == [32, 128]
    assert worth_compiling([20, 60, 60], ladder, least_rows=3) == [64]
    assert worth_compiling([20, 20], ladder, least_rows=3) == [32]
    assert worth_compiling([20, 60], ladder, least_rows=3) == [64]
