"""SimPO and CPO: worked by hand, trained without a reference; splits and kills change nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mygpt.align.simpo import CPO, SimPO, SimPOConfig, simpo
from mygpt.core.run import Run
from mygpt.lm.adapters.lora import LoRA
from tests.align import pair_sites
from tests.finetune import toys
from tests.finetune.conftest import Killed, killed_at, one_thread

__all__ = ["killed_at", "one_thread"]


def tuned(run: Run, *, probability: str = "", **changes: Any) -> Any:
    settings = {"method": LoRA(rank=2), "step_pairs": 4, **pair_sites.FAST, **changes}
    dataset = pair_sites.compared(pair_sites.ComparedConfig(probability=probability), run=run)
    return simpo(SimPOConfig(**settings), model=toys.base(toys.BaseConfig(), run=run), dataset=dataset, run=run)


def losses(made: Any) -> list[float]:
    return [loss for _, loss in made.manifest.facts["curve"]]


def test_worked_by_hand() -> None:
    """Means -2.5 and -2.8: log(1 + exp(1.375 - 2.5 x 0.3)) = 1.053701; sums -10 and -14: log(1 + exp(-0.4)) = 0.513015, and 2.5 nats."""
    logprobs, tokens = torch.tensor([[-10.0, -14.0]]), torch.tensor([[4.0, 5.0]])
    assert float(SimPO()(logprobs, tokens)) == pytest.approx(1.053701, abs=2e-6)
    assert float(SimPO(nll_weight=0.1)(logprobs, tokens)) == pytest.approx(1.303701, abs=2e-6)
    assert float(CPO()(logprobs, tokens)) == pytest.approx(3.013015, abs=2e-6)


@pytest.mark.parametrize("loss", ["simpo", "cpo"])
def test_pairs_are_learnt_however_they_are_split(loss: str, run: Run) -> None:
    curves = [losses(tuned(run, loss={"name": loss}, micro_batch_tokens=n, epochs=6)) for n in (2048, 1)]
    assert curves[0][-1] < 0.7 * curves[0][0]
    assert curves[1] == pytest.approx(curves[0], abs=2e-3)


def test_killed_and_resumed_is_uninterrupted(run: Run, killed_at: Callable[[int], Run]) -> None:
    whole = tuned(run, epochs=4)
    with pytest.raises(Killed):
        tuned(killed_at(3), epochs=4)
    assert tuned(killed_at(0), epochs=4).manifest.content == whole.manifest.content


def test_what_is_not_used_is_said(run: Run) -> None:
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event.get("text", "")))
    tuned(run, probability="0.8", epochs=1)
    assert any("which this loss does not use" in text for text in said)
