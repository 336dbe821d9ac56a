"""DPO: its first step is the table's, splits change nothing, kills change nothing, and a pair that is learnt is told apart."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mygpt.align import answer_rows, pair_tuning
from mygpt.align.dpo import DPOConfig, dpo
from mygpt.align.pair_losses import DPO, IPO
from mygpt.align.preference_measures import measures, told
from mygpt.artifacts.model import Adapter, Model
from mygpt.core.config import parse_settings, resolve
from mygpt.core.errors import Refused, Stopped, UsageError
from mygpt.core.run import Run
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from tests.align import pair_sites
from tests.finetune import toys
from tests.finetune.conftest import Killed, killed_at, one_thread
from tests.lm.test_varlen import as_on_a_gpu

__all__ = ["as_on_a_gpu", "killed_at", "one_thread"]


def tuned(run: Run, *, sites: dict[str, Any] | None = None, **changes: Any) -> Any:
    settings = {"method": LoRA(rank=2), "step_pairs": 2, **pair_sites.FAST, **changes}
    dataset = pair_sites.compared(pair_sites.ComparedConfig(**(sites or {})), run=run)
    return dpo(DPOConfig(**settings), model=toys.base(toys.BaseConfig(), run=run), dataset=dataset, run=run)


def losses(made: Any) -> list[float]:
    return [loss for _, loss in made.manifest.facts["curve"]]


def test_pairs_are_learnt(run: Run) -> None:
    made = tuned(run, epochs=8)
    facts = made.manifest.facts
    assert isinstance(made, Adapter) and facts["pairs"] == 4 and facts["prompts_shared"] and facts["unusable_dropped"] == 0
    assert losses(made)[0] == 0.6931 and losses(made)[-1] < 0.1
    before, after = facts["held_out"]["before"], facts["held_out"]["after"]
    assert before["accuracy"] is None and before["margin"] == 0.0 and before["pairs"] == after["pairs"] == 2
    assert after["margin"] != 0.0 and 0 <= after["accuracy_interval"][0] <= after["accuracy"] <= after["accuracy_interval"][1] <= 1
    assert facts["sentences"][0].startswith("Held out: the chosen answer has the higher reward in ")
    engine = TorchEngine(made.base, adapter=made)  # the template is the one that it was tuned with
    assert engine.renderer.template_digest == facts["template"]


def test_every_weight_against_a_copy(run: Run) -> None:
    made = tuned(run, method=Full(), learning_rate=1e-3)
    assert isinstance(made, Model) and losses(made)[0] == 0.6931 and losses(made)[-1] < 0.69


@pytest.mark.parametrize(
    ("loss", "first"),
    [({"name": "ipo"}, 25.0), ({"name": "hinge"}, 1.0), ({"name": "nca"}, 1.3863), ({"name": "aot", "beta": 0.1}, 0.6931)],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_micro_batches_change_nothing(loss: dict[str, Any], first: float, run: Run) -> None:
    """All pairs of a step in one micro-batch, or each alone."""
    curves = [losses(tuned(run, loss=loss, step_pairs=4, micro_batch_tokens=n, epochs=3)) for n in (2048, 1)]
    assert curves[0][0] == pytest.approx(first, abs=1e-4) and curves[0][-1] < first
    assert curves[1] == pytest.approx(curves[0], abs=2e-4 * first)


def test_packed_and_compiled_as_on_a_gpu(run: Run, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The losses of a CPU. There nothing is packed, so nothing is compiled either, and it is said."""
    told: list[str] = []
    run.listeners.append(lambda event: told.append(event["text"]) if event["event"] == "warning" else None)
    plain = losses(tuned(run, epochs=4, compile_layers=True))
    assert any("not compiled" in text for text in told)
    told.clear()
    request.getfixturevalue("as_on_a_gpu")
    for place in (answer_rows, pair_tuning):
        monkeypatch.setattr(place, "packs_pairs", lambda module: True)
    with torch.compiler.set_stance("force_eager"):  # the compiler takes longer than the rest
        packed = losses(tuned(run, epochs=4, compile_layers=True, micro_batch_tokens=2047))
    assert packed == pytest.approx(plain, abs=2e-4) and packed[-1] < 0.6 and not any("compiled" in text for text in told)


def test_likelihood_beside_it(run: Run) -> None:
    """The first loss is log 2 and the weighted nats a token of the chosen answers."""
    plain, beside = losses(tuned(run, step_pairs=4))[0], losses(tuned(run, step_pairs=4, nll_weight=0.5))[0]
    nats = 2 * (beside - plain)
    assert plain == 0.6931 and 1 < nats < 20
    assert losses(tuned(run, step_pairs=4, nll_weight=1.0))[0] - plain == pytest.approx(nats, abs=3e-4)


def test_labels_that_are_not_sure(run: Run) -> None:
    """As cDPO with the same noise."""
    soft = losses(tuned(run, sites={"probability": "0.8"}))
    assert soft == losses(tuned(run, loss={"name": "dpo", "label_smoothing": 0.2})) != losses(tuned(run))
    with pytest.raises(Refused, match="The pair pair-0 says that its chosen answer is the better with the probability `likely`"):
        tuned(run, sites={"probability": "likely"})
    with pytest.raises(Refused, match="`loss=aot` sorts answers apart from their pairs"):
        tuned(run, sites={"probability": "0.8"}, loss={"name": "aot"})


def test_killed_and_told_to_stop_and_resumed_is_uninterrupted(run: Run, killed_at: Callable[[int], Run]) -> None:
    whole = tuned(run, epochs=3)
    with pytest.raises(Killed):
        tuned(killed_at(2), epochs=3)
    told_to = killed_at(0)
    told_to.listeners.append(lambda event: terminate() if event["event"] == "log" and event["training_step"] == 3 else None)
    with pytest.raises(Stopped, match="The state after step 3 of 6"):
        tuned(told_to, epochs=3)
    last, notes = killed_at(0), list[str]()
    last.listeners.append(lambda event: notes.append(event["text"]) if event["event"] == "note" else None)
    again = tuned(last, epochs=3)
    assert any(text.startswith("Going on from step 3 of") for text in notes)
    assert again.manifest.content == whole.manifest.content
    for fact in ("curve", "held_out"):
        assert again.manifest.facts[fact] == whole.manifest.facts[fact]


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_pairs_that_cannot_be_learnt(run: Run) -> None:
    alike = (("When?", "At 8.", "At 8."), ("Where?", "On the server.", "No idea."))
    with pytest.raises(Refused, match="1 of 2 pairs cannot be learnt from"):
        tuned(run, sites={"pairs": alike})
    made = tuned(run, sites={"pairs": alike, "held_out": ()}, drop_unusable=True)
    assert made.manifest.facts["unusable_dropped"] == 1 and made.manifest.facts["held_out"] is None
    assert made.manifest.facts["sentences"] == ["No held-out pairs: how well it does was not measured."]


def test_a_rate_is_a_tenth_of_the_methods(run: Run) -> None:
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event.get("text", "")))
    rates: list[float] = []
    run.listeners.append(lambda event: rates.append(event["learning_rate"]) if event["event"] == "log" else None)
    tuned(run, learning_rate=None, warmup_share=0.0, epochs=1)
    assert "Learning rate 5e-05, a tenth of what is usual for `method=lora`." in said
    assert rates[0] == pytest.approx(5e-5)


def test_a_loss_is_chosen_by_name() -> None:
    config = resolve(DPOConfig, parse_settings(["loss=ipo", "loss.beta=0.2", "method=full"]))
    assert config.loss == IPO(beta=0.2) and config.method == Full()
    assert resolve(DPOConfig, parse_settings(["loss.label_smoothing=0.1"])).loss == DPO(label_smoothing=0.1)
    with pytest.raises(UsageError, match="loss"):
        resolve(DPOConfig, parse_settings(["loss=ipp"]))


def test_measures_worked_by_hand() -> None:
    """Rewards of chosen and rejected: 2 and -1, then 0 and 1. Nats a token: -2.5 against -2.8, then -3 against -1.5."""
    logprobs, tokens = torch.tensor([[-10.0, -14.0], [-9.0, -3.0]]), torch.tensor([[4.0, 5.0], [3.0, 2.0]])
    before = measures(torch.tensor([[-9.0, -14.0], [-9.0, -3.0]]), tokens, None)
    found = measures(logprobs, tokens, torch.tensor([[-12.0, -13.0], [-9.0, -4.0]]))
    assert (found["accuracy"], found["likelier"], found["margin"]) == (0.5, 0.5, 1.0)
    assert found["accuracy_interval"] == pytest.approx([0.0945, 0.9055], abs=1e-4)  # Wilson, 1 of 2
    assert (found["chosen"], found["rejected"], found["pairs"]) == (-9.5, -8.5, 2)
    assert "accuracy" not in before
    assert told(before, found).endswith("-9.0 before and -9.5 after, of rejected ones -8.5 and -8.5: chosen answers became less likely")
    assert told(None, None) == ""
