"""Rows that several examples share: every example once, little padding, positions that begin anew, and no label across a border."""

import random
from collections import Counter
from typing import Any

import pytest
import torch

from mygpt.lm.chat import Rendered
from mygpt.training import packing
from mygpt.training.batches import padding_share, plan_epoch, size_in_rows, size_packed
from mygpt.training.packing import best_fit, isolation_fault, packed_batch, plan_packed_epoch
from tests.training import tiny

LENGTHS = random.Random(5).choices(range(3, 90), k=200)
CPU = torch.device("cpu")


def test_best_fit_by_hand() -> None:
    """Capacity 10: 6 and 7 begin a row each; 3 fills the second exactly (first fit: the first); 4 fills the first; 5 begins anew."""
    lengths = [6, 7, 3, 4, 5]
    assert best_fit([0, 1, 2, 3, 4], lengths, 10) == [[0, 3], [1, 2], [4]]
    assert best_fit([0, 1], [12, 3], 10) == [[0], [1]]  # longer than a row: alone, not lost
    assert best_fit([], [], 10) == []


def test_longest_first_needs_at_most_eleven_ninths_of_the_least() -> None:
    """Johnson 1973: 11/9 of the optimum and 4; the tokens themselves bound the optimum from below."""
    rows = best_fit(sorted(range(200), key=lambda i: -LENGTHS[i]), LENGTHS, 128)
    assert len(rows) <= 11 / 9 * -(-sum(LENGTHS) // 128) + 4
    assert all(sum(LENGTHS[i] for i in row) <= 128 for row in rows)


@pytest.mark.parametrize(("step_tokens", "pack_tokens"), [(1024, 2048), (1024, 256), (256, 128), (64, 64), (1, 1)])
def test_every_example_once_and_within_budget(step_tokens: int, pack_tokens: int) -> None:
    plan = plan_packed_epoch(LENGTHS, step_tokens=step_tokens, pack_tokens=pack_tokens, order=random.Random(0))
    assert Counter(i for step in plan for row in step for i in row) == Counter(range(200))
    for step in plan:
        assert len(step) == 1 or sum(LENGTHS[i] for row in step for i in row) <= step_tokens
        for row in step:
            assert len(row) == 1 or sum(LENGTHS[i] for i in row) <= min(pack_tokens, step_tokens)


def test_same_seed_same_plan_and_company_changes_between_epochs() -> None:
    first, again, other = (plan_packed_epoch(LENGTHS, step_tokens=256, pack_tokens=256, order=random.Random(seed)) for seed in (1, 1, 2))
    assert first == again
    company = [{frozenset(row) for step in plan for row in step} for plan in (first, other)]
    assert len(company[0] & company[1]) < 0.2 * len(company[0])


def test_padding_of_each_choice_by_hand_and_at_large() -> None:
    plan, lengths = [[[0, 1], [2]]], [3, 5, 4]
    assert padding_share(plan, lengths, size=size_in_rows) == pytest.approx(1 - 12 / 14)  # 2 x 5 and 4
    assert padding_share(plan, lengths, size=size_packed) == 0.0
    assert padding_share(plan, lengths, size=size_packed, shapes=[4, 10]) == pytest.approx(1 - 12 / 14)  # 10 and 4
    assert padding_share(plan, lengths, size=size_in_rows, shapes=[8]) == pytest.approx(1 - 12 / 24)  # 2 x 8 and 8
    assert padding_share([], [], size=size_packed) == 0.0
    order: Any = {"step_tokens": 1024, "order": random.Random(0)}
    in_rows = padding_share(plan_epoch(LENGTHS, micro_batch_tokens=1024, **order), LENGTHS, size=size_in_rows)
    fixed = padding_share(plan_packed_epoch(LENGTHS, pack_tokens=1024, **order), LENGTHS, size=size_packed, shapes=[1024])
    assert fixed < 0.06 < 0.08 < in_rows


def test_packed_batch_by_hand() -> None:
    """The first token of the second example is marked, and is no label all the same: what precedes it is the first example's."""
    rows = [Rendered((5, 6, 7), (False, True, True), ()), Rendered((8, 9), (True, True), ())]
    batch = packed_batch(rows, padding_id=4, device=CPU, shapes=[4, 8])
    assert batch.ids_BT.tolist() == [[5, 6, 7, 8, 9, 4, 4, 4]]
    assert batch.trained_BT.tolist() == [[False, True, True, False, True, False, False, False]]
    assert batch.positions_BT is not None and batch.positions_BT.tolist() == [[0, 1, 2, 0, 1, 0, 1, 2]]
    assert batch.num_tokens == 5
    assert packed_batch(rows, padding_id=4, device=CPU).ids_BT.shape == (1, 5)


def test_what_a_wrong_forward_pass_is_found_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the ways in which packing goes wrong elsewhere: positions ignored, a causal mask over the row, positions that run on."""
    module, real = tiny.family("gpt2"), packing.hidden_states
    decoder = module.get_decoder()

    def judged(forward: Any) -> str:
        monkeypatch.setattr(packing, "hidden_states", lambda module, ids, positions=None: forward(ids, positions))
        return isolation_fault(module, [5, 6, 7, 8], [9, 10, 11]) or ""

    def without_mask(ids: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        return decoder(input_ids=ids, position_ids=positions, attention_mask=torch.ones_like(ids), use_cache=False).last_hidden_state

    def running_on(ids: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        if positions is None:
            return real(module, ids)
        blocks = torch.ones(7, 7, dtype=torch.bool).tril() & (torch.arange(7)[:, None] < 4).eq(torch.arange(7) < 4)
        return decoder(input_ids=ids, attention_mask=blocks[None, None], use_cache=False).last_hidden_state

    def refusing(ids: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        return decoder(input_ids=ids, **({} if positions is None else {"places": positions}), use_cache=False).last_hidden_state

    assert judged(lambda ids, positions: real(module, ids, positions)) == ""
    assert "notices what stands before it" in judged(lambda ids, positions: real(module, ids))
    assert "notices what stands before it" in judged(without_mask)
    assert "read differently behind another" in judged(running_on)
    monkeypatch.setattr(type(decoder), "forward", lambda self, input_ids, use_cache: real)
    assert "does not take such a row" in judged(refusing)
