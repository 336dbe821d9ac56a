"""Estimators by hand and against the exact divergence; the reward of each token; the controllers' arithmetic."""

import pytest
import torch
from pydantic import TypeAdapter

from mygpt.align.kl import ESTIMATORS, AdaptiveKL, Controller, FixedKL, k1, k2, k3, penalised_rewards


def test_by_hand() -> None:
    """log q/p = .1 and -.1: k3 = e^.1 - 1.1 and e^-.1 - .9 (table of section 3 of the reference)."""
    logprobs, reference = torch.tensor([-1.0, -1.0]), torch.tensor([-0.9, -1.1])
    assert k1(logprobs, reference).tolist() == pytest.approx([-0.1, 0.1])
    assert k2(logprobs, reference).tolist() == pytest.approx([0.005, 0.005])
    assert k3(logprobs, reference).tolist() == pytest.approx([0.005171, 0.004837], abs=1e-6)


def test_means_and_gradients() -> None:
    """Over the distribution itself: k1 and k3 give the divergence; of the three as losses only k2 has its gradient."""
    torch.manual_seed(0)
    logits = torch.randn(6, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(6, dtype=torch.float64).log_softmax(0)
    logp = logits.log_softmax(0)
    exact = (logp.exp() * (logp - reference)).sum()
    weights = logp.exp().detach()
    means = {name: (weights * estimate(logp, reference)).sum() for name, estimate in ESTIMATORS.items()}
    assert means["k1"].item() == pytest.approx(exact.item()) == pytest.approx(means["k3"].item())
    assert (k3(logp, reference) >= 0).all() and (k1(logp, reference) < 0).any()
    gradient = {name: torch.autograd.grad(value, logits, retain_graph=True)[0] for name, value in {**means, "exact": exact}.items()}
    torch.testing.assert_close(gradient["k2"], gradient["exact"])
    assert not torch.allclose(gradient["k1"], gradient["exact"]) and not torch.allclose(gradient["k3"], gradient["exact"])


def test_one_impossible_token_is_no_infinity() -> None:
    assert torch.isfinite(k3(torch.tensor([-900.0]), torch.tensor([-1.0]))).all()


def test_the_score_stands_at_the_last_token() -> None:
    kl_BL = torch.tensor([[1.0, 2.0, 3.0], [4.0, 9.0, 9.0], [1.0, 9.0, 2.0]])
    is_answer_BL = torch.tensor([[True, True, True], [True, False, False], [True, False, True]])
    rewards_BL = penalised_rewards(torch.tensor([5.0, -1.0, 2.0]), kl_BL, is_answer_BL, coefficient=0.1)
    torch.testing.assert_close(rewards_BL, torch.tensor([[-0.1, -0.2, 4.7], [-1.4, 0.0, 0.0], [-0.1, 0.0, 1.8]]))


def test_adaptive() -> None:
    """KL 12, target 6, 512 answers, horizon 10,000: the error is cut at .2, so times 1.01024 (section 3 of the reference)."""
    controller = AdaptiveKL()
    assert controller.next(0.15, kl=12.0, num_answers=512) == pytest.approx(0.15 * 1.01024, rel=1e-12)
    assert controller.next(0.15, kl=0.0, num_answers=512) == pytest.approx(0.15 * 0.98976, rel=1e-12)
    assert controller.next(0.15, kl=6.6, num_answers=100) == pytest.approx(0.15 * 1.001, rel=1e-12)
    assert controller.next(0.15, kl=6.0, num_answers=512) == 0.15


def test_fixed_and_as_a_setting() -> None:
    assert FixedKL(coefficient=0.2).next(0.2, kl=99.0, num_answers=512) == 0.2
    read = TypeAdapter(Controller).validate_python({"name": "adaptive", "target": 2.0})
    assert isinstance(read, AdaptiveKL) and read.target == 2.0
