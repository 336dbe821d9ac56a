"""Worked by hand on two groups of four rewards: (1, 0, 0, 1) and (2, 2, 2, 2)."""

import math

import pytest
import torch

from mygpt.align.group_advantages import centred, group_relative, has_spread, leave_one_out, moved_baseline, rewards_to_go

REWARDS = torch.tensor([[1.0, 0, 0, 1], [2, 2, 2, 2]])


def test_group_relative() -> None:
    """Mean 1/2; the sum of squares is 1, so the standard deviation is sqrt(1/3)."""
    half = 0.5 / (math.sqrt(1 / 3) + 1e-4)
    torch.testing.assert_close(group_relative(REWARDS), torch.tensor([[half, -half, -half, half], [0, 0, 0, 0]]))


def test_centred() -> None:
    assert centred(REWARDS).tolist() == [[0.5, -0.5, -0.5, 0.5], [0, 0, 0, 0]]


def test_leave_one_out() -> None:
    """The others of the first answer have the mean 1/3, those of the second 2/3."""
    expected = torch.tensor([[2 / 3, -2 / 3, -2 / 3, 2 / 3], [0, 0, 0, 0]])
    torch.testing.assert_close(leave_one_out(REWARDS), expected)
    torch.testing.assert_close(leave_one_out(REWARDS), centred(REWARDS) * 4 / 3)


def test_leave_one_out_has_no_bias() -> None:
    """The exact gradient of the expected reward of a choice among three, p = softmax(0, 1, 2), against its expectation over all pairs
    of draws: reward of an answer less that of the other, times the gradient of its log-probability."""
    logits = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    worth = torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64)
    p = logits.softmax(0)
    (exact,) = torch.autograd.grad((p * worth).sum(), logits, retain_graph=True)
    expected = torch.zeros(())
    for a in range(3):
        for b in range(3):
            advantages = leave_one_out(torch.stack([worth[a], worth[b]])[None])[0]
            expected = expected + (p[a] * p[b]).detach() * (advantages[0] * p[a].log() + advantages[1] * p[b].log()) / 2
    (found,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(found, exact)


def test_moved_baseline() -> None:
    assert moved_baseline(None, 3.0, decay=0.9) == 3.0
    assert moved_baseline(3.0, 1.0, decay=0.9) == pytest.approx(2.8)


def test_rewards_to_go() -> None:
    assert rewards_to_go(torch.tensor([[1.0, -2, 4], [0, 0, 5]])).tolist() == [[3, 2, 4], [5, 5, 5]]


def test_groups_without_spread() -> None:
    assert has_spread(REWARDS).tolist() == [True, False]
    assert has_spread(torch.tensor([[0.1 + 0.2, 0.3]])).tolist() == [False]
