"""Advantages by hand and as the sum that defines them; whitening by its moments."""

import pytest
import torch

from mygpt.align.advantages import explained_variance, gae, whitened


def test_by_hand() -> None:
    """r = [0, 0, 1], V = .5, gamma = 1, lambda = .95 (section 3 of the reference)."""
    rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.full((1, 3), 0.5)
    found = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), gamma=1.0, lam=0.95)
    torch.testing.assert_close(found, torch.tensor([[0.45125, 0.475, 0.5]]))
    torch.testing.assert_close(found + values, torch.tensor([[0.95125, 0.975, 1.0]]))


def test_the_sum_that_defines_it() -> None:
    """Equation 16: the sum over l of (gamma lambda)^l delta(t + l), in rows of different lengths; nothing behind them counts."""
    torch.manual_seed(0)
    rewards, values, gamma, lam = torch.randn(3, 7), torch.randn(3, 7), 0.97, 0.9
    lengths = [7, 4, 1]
    is_answer = torch.arange(7) < torch.tensor(lengths)[:, None]
    found = gae(rewards, values, is_answer, gamma=gamma, lam=lam)
    for row, length in enumerate(lengths):
        following = [*values[row, 1:length].tolist(), 0.0]
        delta = [float(rewards[row, t]) + gamma * following[t] - float(values[row, t]) for t in range(length)]
        summed = [sum((gamma * lam) ** (s - t) * delta[s] for s in range(t, length)) for t in range(length)]
        assert found[row].tolist() == pytest.approx([*summed, *[0.0] * (7 - length)], abs=1e-5)


def test_lambda_one_is_the_return_less_the_value() -> None:
    rewards, values = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[9.0, -4.0, 0.5]])
    found = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), gamma=1.0, lam=1.0)
    torch.testing.assert_close(found, torch.tensor([[6.0, 5.0, 3.0]]) - values)


def test_foreign_tokens_inside_an_answer_are_passed_over() -> None:
    """As if they were not there."""
    rewards, values = torch.tensor([[1.0, 7.0, 7.0, 3.0]]), torch.tensor([[0.5, 8.0, 8.0, 0.2]])
    is_answer = torch.tensor([[True, False, False, True]])
    found = gae(rewards, values, is_answer, gamma=0.9, lam=0.8)
    short = gae(rewards[:, [0, 3]], values[:, [0, 3]], torch.ones(1, 2, dtype=torch.bool), gamma=0.9, lam=0.8)
    assert found[0].tolist() == [float(short[0, 0]), 0.0, 0.0, float(short[0, 1])]


def test_whitening() -> None:
    """Of 1, 2, 3, 4: mean 2.5, unbiased variance 5/3; what is not marked has no part in either."""
    values = torch.tensor([[1.0, 2.0, 99.0], [3.0, 4.0, -50.0]])
    marked = torch.tensor([[True, True, False], [True, True, False]])
    scale = (5 / 3) ** -0.5
    expected = torch.tensor([[-1.5 * scale, -0.5 * scale, 0.0], [0.5 * scale, 1.5 * scale, 0.0]])
    torch.testing.assert_close(whitened(values, marked), expected)
    torch.testing.assert_close(whitened(values, marked, shift_mean=False), torch.where(marked, expected + 2.5, 0.0))


def test_one_token_is_no_division_by_zero() -> None:
    one = torch.tensor([[True]])
    assert whitened(torch.tensor([[3.0]]), one).tolist() == [[0.0]]
    assert whitened(torch.tensor([[3.0]]), one, shift_mean=False).tolist() == [[3.0]]


def test_explained_variance() -> None:
    """Returns 0, 2, 4 have the variance 8/3; errors 1, -1, 0 have 2/3. A constant off in the values costs nothing."""
    returns = torch.tensor([0.0, 2.0, 4.0])
    assert explained_variance(torch.tensor([-1.0, 3.0, 4.0]), returns) == pytest.approx(0.75)
    assert explained_variance(returns + 7, returns) == pytest.approx(1.0)
    assert explained_variance(torch.full((3,), 2.0), returns) == pytest.approx(0.0)
    assert explained_variance(-returns, returns) == pytest.approx(-3.0)
    assert explained_variance(torch.tensor([1.0, 2.0]), torch.tensor([5.0, 5.0])) == 0.0
