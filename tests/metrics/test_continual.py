"""Forgetting and backward transfer on a table of three tasks by hand, and KL divergence by hand and against torch."""

import math

import numpy as np
import pytest

from mygpt.metrics.continual import backward_transfer, forgetting, kl_divergence

# After learning task 1, 2, 3 in turn: the score on each.
SCORES = [
    [0.90, 0.30, 0.20],
    [0.70, 0.80, 0.25],
    [0.60, 0.85, 0.95],
]


def test_forgetting_by_hand() -> None:
    """Task 1 fell from 0.90; task 2 rose from its best 0.80; task 3 was never better than now."""
    assert forgetting(SCORES) == pytest.approx([0.30, -0.05, -0.70])
    assert forgetting([[0.5, 0.4], [0.6, 0.1]]) == pytest.approx([-0.1, 0.3])  # base and tuned: the plain difference


def test_backward_transfer_by_hand() -> None:
    """((0.60 - 0.90) + (0.85 - 0.80)) / 2"""
    assert backward_transfer(SCORES) == pytest.approx(-0.125)


def test_kl_by_hand() -> None:
    """p = (1/2, 1/2), q = (1/4, 3/4): ln 2 / 2 + ln(2/3) / 2. The other way: ln(1/2) / 4 + 3 ln(3/2) / 4."""
    p, q = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    assert kl_divergence(p, q) == pytest.approx([0.5 * math.log(2) + 0.5 * math.log(2 / 3)])
    assert kl_divergence(q, p) == pytest.approx([0.25 * math.log(0.5) + 0.75 * math.log(1.5)])
    assert kl_divergence(p, p) == pytest.approx([0.0])


def test_what_is_ruled_out() -> None:
    with np.errstate(divide="ignore"):
        sure, unsure = np.log([[1.0, 0.0]]), np.log([[0.5, 0.5]])
    assert kl_divergence(sure, unsure) == pytest.approx([math.log(2)])
    assert kl_divergence(unsure, sure)[0] == math.inf


def test_kl_equals_torch() -> None:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    p_TV, q_TV = (torch.randn(7, 50, generator=generator).mul(3).log_softmax(-1) for _ in range(2))
    expected_T = torch.nn.functional.kl_div(q_TV, p_TV, log_target=True, reduction="none").sum(-1)
    np.testing.assert_allclose(kl_divergence(p_TV.numpy(), q_TV.numpy()), expected_T.numpy(), rtol=1e-4)


@pytest.mark.parametrize("scores", [[], [[]], [[0.5]], [[0.5, 0.4], [0.5]], [[0.5], [math.nan]]])
def test_scores_that_cannot_be_compared(scores: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"every stage needs|two stages|not a number"):
        forgetting(scores)
    with pytest.raises(ValueError, match=r"every stage needs|as many stages|not a number"):
        backward_transfer(scores)


def test_distributions_that_cannot_be_compared() -> None:
    flat = np.log(np.full((2, 4), 0.25))
    with pytest.raises(ValueError, match=r"one shape are needed, not \(2, 4\) and \(2, 3\)"):
        kl_divergence(flat, flat[:, :3])
    with pytest.raises(ValueError, match="not a number"):
        kl_divergence(flat, np.where(flat < 0, np.nan, flat))
    with pytest.raises(ValueError, match="above 0"):
        kl_divergence(flat, flat + 2.0)
    with pytest.raises(ValueError, match="as many stages as tasks"):
        backward_transfer([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
