"""Every loss of pairs: its value where policy and reference agree, values worked by hand, and trl's own (benchmarks/trl_pair_losses.py)."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from mygpt.align.kto import kto_loss
from mygpt.align.orpo import log_odds, odds_ratio_loss
from mygpt.align.pair_losses import AOT, DPO, IPO, SPPO, AOTUnpaired, Compared, PairLoss, Tangent, expected, negative_log_likelihood
from mygpt.align.simpo import CPO, SimPO

TRL = json.loads((Path(__file__).parent / "trl_pair_losses.json").read_text(encoding="utf-8"))
THEIR_NAMES = {"sigmoid": "dpo", "exo_pair": "exo", "nca_pair": "nca", "bco_pair": "bco", "sppo_hard": "sppo"}
GIVEN = {name: torch.tensor(values, dtype=torch.float32) for name, values in TRL["given"].items()}


def loss_of(name: str, **settings: Any) -> PairLoss:
    found: PairLoss = TypeAdapter(PairLoss).validate_python({"name": name, **settings})
    return found


def one_pair(chosen: float, rejected: float, reference_chosen: float, reference_rejected: float) -> Compared:
    """The chosen answer has 4 tokens, the rejected one 5."""
    return Compared(*(torch.tensor([value]) for value in (chosen, rejected, reference_chosen, reference_rejected, 4.0, 5.0)))


def of_trl() -> Compared:
    return Compared(*(part for name in ("logprobs", "reference", "tokens") for part in GIVEN[name].split(4)))


@pytest.mark.parametrize(
    ("name", "settings", "value"),  # with both ratios 0: sigmoid(0) = 1/2, so -log of it is log 2 = 0.6931
    [
        ("dpo", {}, 0.6931),
        ("dpo", {"label_smoothing": 0.3}, 0.6931),
        ("robust", {}, 0.6931),
        ("hinge", {}, 1.0),
        ("ipo", {"beta": 0.1}, 25.0),
        ("exo", {}, 2.7612),
        ("nca", {}, 1.3863),
        ("bco", {}, 1.3863),
        ("sppo", {"beta": 0.1}, 50.0),
        ("apo_zero", {}, 1.0),
        ("apo_down", {}, 1.0),
        ("discopop", {}, 0.8466),
        ("aot", {}, 0.6931),
        ("aot_unpaired", {}, 0.6931),
        ("sigmoid_norm", {}, 0.6931),
    ],
)
def test_where_nothing_has_moved(name: str, settings: dict[str, float], value: float) -> None:
    assert float(loss_of(name, **settings)(one_pair(-10.0, -14.0, -10.0, -14.0))) == pytest.approx(value, abs=5e-5)


def test_where_nothing_has_moved_without_pairs_or_reference() -> None:
    same = torch.tensor([[-12.0, -15.0]])
    assert float(SimPO()(same, torch.tensor([[4.0, 5.0]]))) == pytest.approx(1.6004, abs=5e-5)  # -log sigmoid(-1.375)
    assert float(0.1 * odds_ratio_loss(torch.tensor([-3.0]), torch.tensor([-3.0]))) == pytest.approx(0.0693, abs=5e-5)
    for good in (True, False):
        assert float(kto_loss(torch.zeros(1), torch.tensor([good]), 0.0, beta=0.1)) == 0.5


@pytest.mark.parametrize(
    ("name", "settings", "value"),  # r+ = 2, r- = -1, margin 3 (a token: 2/4 + 1/5 = 0.7)
    [
        ("dpo", {}, 0.554355),  # log(1 + exp(-0.3))
        ("dpo", {"label_smoothing": 0.2}, 0.614355),  # 0.8 x 0.554355 + 0.2 x 0.854355
        ("robust", {}, 0.516855),  # (0.9 x 0.554355 - 0.1 x 0.854355) / 0.8
        ("hinge", {}, 0.85),
        ("ipo", {}, 18.49),  # (0.7 - 5)^2
        ("sppo", {"beta": 0.1}, 25.0),  # (2 - 5)^2 + (-1 + 5)^2
        ("apo_zero", {}, 0.925187),  # 1 - 0.549834 + 0.475021
        ("apo_down", {}, 0.975391),  # 0.549834 + 1 - 0.574443
        ("sigmoid_norm", {"beta": 1.0}, 0.403186),  # log(1 + exp(-0.7))
        ("aot", {"beta": 0.1}, 0.554355),  # a single pair has nobody to change places with
    ],
)
def test_worked_by_hand(name: str, settings: dict[str, float], value: float) -> None:
    assert float(loss_of(name, **settings)(one_pair(-10.0, -14.0, -12.0, -13.0))) == pytest.approx(value, abs=2e-6)


@pytest.mark.parametrize("case", TRL["pairs"], ids=lambda case: case["loss"])
def test_as_trl(case: dict[str, Any]) -> None:
    loss = loss_of(THEIR_NAMES.get(case["loss"], case["loss"]), **case["settings"])
    assert float(loss(of_trl()).mean()) == pytest.approx(case["mean"], rel=1e-5)


def test_as_trl_without_pairs_or_reference() -> None:
    kto, settings = TRL["kto"], TRL["kto"]["settings"]
    good_A, ratio_A = torch.tensor(kto["good"]), GIVEN["logprobs"] - GIVEN["reference"]
    weight_A = torch.where(good_A, settings["desirable_weight"], settings["undesirable_weight"])
    z = max(0.0, sum(kto["moved"]) / len(kto["moved"]))
    assert z > 0.1
    for shift, mean in ((z, kto["mean"]), (0.0, kto["apo_zero_unpaired"])):
        assert float((weight_A * kto_loss(ratio_A, good_A, shift, beta=settings["beta"])).mean()) == pytest.approx(mean, rel=1e-5)

    logprobs_P2, tokens_P2 = GIVEN["logprobs"].view(2, 4).T, GIVEN["tokens"].view(2, 4).T
    averages_P2 = logprobs_P2 / tokens_P2
    assert (TRL["orpo"]["weight"] * odds_ratio_loss(*averages_P2.unbind(1))).tolist() == pytest.approx(TRL["orpo"]["each"], rel=1e-5)
    assert SimPO()(logprobs_P2, tokens_P2).tolist() == pytest.approx(TRL["simpo"], rel=1e-5)
    assert CPO(nll_weight=0.0)(logprobs_P2, tokens_P2).tolist() == pytest.approx(TRL["cpo"], rel=1e-5)


def test_odds() -> None:
    """p = 1/2: odds 1; p = 1/4: 1/3. A certain answer has no odds, and no infinite gradient."""
    assert log_odds(torch.tensor([0.5, 0.25]).log()).tolist() == pytest.approx([0.0, -math.log(3)], abs=1e-6)
    assert float(odds_ratio_loss(torch.tensor([0.5]).log(), torch.tensor([0.25]).log())) == pytest.approx(math.log(4 / 3), abs=1e-6)
    sure = torch.zeros(1, requires_grad=True)
    log_odds(sure).sum().backward()
    assert torch.isfinite(log_odds(sure)).all() and torch.isfinite(sure.grad).all()


def test_labels_that_are_not_sure() -> None:
    """One probability for all is cDPO; of a coin's toss the two directions weigh alike."""
    pairs = of_trl()
    smoothed = DPO(label_smoothing=0.2)(pairs)
    assert torch.allclose(expected(DPO(), pairs, torch.full((4,), 0.8)), smoothed, atol=1e-6)
    each_P = torch.tensor([1.0, 0.5, 0.0, 0.9])
    found_P = expected(IPO(), pairs, each_P)
    own_P, other_P = IPO()(pairs), IPO()(pairs.exchanged)
    assert found_P.tolist() == pytest.approx((each_P * own_P + (1 - each_P) * other_P).tolist())
    assert found_P[0] == own_P[0] and found_P[2] == other_P[2] and not torch.allclose(own_P, other_P)
    assert torch.equal(expected(SPPO(), pairs, None), SPPO()(pairs))


@pytest.mark.parametrize("loss", [AOT(beta=0.3, label_smoothing=0.1), AOTUnpaired(beta=0.3)], ids=lambda loss: loss.name)
def test_a_loss_of_a_whole_step_in_parts(loss: PairLoss) -> None:
    """Value and gradient of the parts add up to those of the whole."""
    pairs = of_trl()
    answers = [pairs.chosen_P.clone().requires_grad_(), pairs.rejected_P.clone().requires_grad_()]

    def compared(numbers: list[int]) -> Compared:
        rest = (pairs.reference_chosen_P, pairs.reference_rejected_P, pairs.chosen_tokens_P, pairs.rejected_tokens_P)
        return Compared(*(part[numbers] for part in (*answers, *rest)))

    order = [2, 0, 3, 1]
    loss(compared(order)).sum().backward()
    whole = torch.stack([part.grad for part in answers if part.grad is not None])
    for part in answers:
        part.grad = None
    tangent = Tangent.at(loss, compared(order), order)
    total = 0.0
    for numbers in ([2, 0], [3], [1]):
        losses_P = tangent(compared(numbers), numbers)
        losses_P.sum().backward()
        total += float(losses_P.detach().sum())
    assert torch.allclose(torch.stack([part.grad for part in answers if part.grad is not None]), whole, atol=1e-7)
    assert total == pytest.approx(float(loss(pairs).sum()), rel=1e-6)
    assert whole.abs().min() > 1e-3


def test_likelihood_beside_it() -> None:
    assert float(negative_log_likelihood(one_pair(-10.0, -14.0, 0.0, 0.0))) == 2.5
    assert float(negative_log_likelihood(of_trl())[0]) == pytest.approx(TRL["likelihood_of_first"], rel=1e-5)


@pytest.mark.parametrize(("name", "more"), [("exo", {"label_smoothing": 0}), ("robust", {"label_smoothing": 0.5}), ("dpo", {"beta": 0})])
def test_settings_without_a_value(name: str, more: dict[str, Any]) -> None:
    """EXO's target has a logarithm, the robust form divides by 1 - 2 e."""
    with pytest.raises(ValidationError):
        loss_of(name, **more)
