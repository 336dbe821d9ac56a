"""Every method of tuning with every objective: it trains, and what is saved opens in ours and in theirs; or the reason why not.

And what the training kit promises holds for all objectives: a kill, SIGTERM or a loss that is no number end well.
"""

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.model import Adapter, Model
from mygpt.core.errors import MygptError, Refused, Stopped
from mygpt.core.run import Run
from mygpt.infer.protocols import Sampling
from mygpt.infer.torch_seq2seq import Seq2SeqCompleter
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.bottleneck import Bottleneck
from mygpt.lm.adapters.freeze import Freeze
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.ia3 import IA3
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.heads import Opened, open_head
from mygpt.lm.inputs import encode
from mygpt.training import tuning
from tests.finetune.conftest import Killed
from tests.finetune.objectives import OBJECTIVES, base, output, plain, tuned
from tests.finetune.test_sft_methods import VIRTUAL, label

METHODS: tuple[Any, ...] = (
    *(Full(), Freeze(num_layers=1), LoRA(rank=2), LoRA(rank=2, weight_decomposed=True), LoRA(rank=2, weights="nf4")),
    *(IA3(), Bottleneck(size=4), *VIRTUAL),
)
RATES = {"full": 3e-3, "freeze": 3e-3, "lora": 1e-2, "ia3": 5e-2, "bottleneck": 1e-2, "prefix": 3e-2, "prompt": 5e-2, "p_tuning": 1e-2}
BASES: tuple[Any, ...] = (
    *(("classifier", "bert"), ("classifier", "llama"), ("tagger", "bert"), ("embedder", "bert"), ("masked_lm", "bert"), ("seq2seq", "t5")),
    *(pytest.param(*pair, marks=pytest.mark.slow) for pair in (("classifier", "bart"), ("seq2seq", "bart"), ("span_corruption", "t5"))),
)


def why_not(method: Any, objective: str, shape: str) -> str:
    """Words of the reason; "" where it trains."""
    if getattr(method, "weights", "") == "nf4":
        return "A base in four bits is loaded as a language model"
    if method not in VIRTUAL or objective in ("seq2seq", "span_corruption"):
        return ""
    if method.name == "prefix":
        return "is no language model: nothing hands its layers a cache"
    if objective == "classifier":
        return "" if shape == "bert" else "reads its answer at the last real token"
    return "answers once for each token: theirs would be in the way"


@pytest.mark.parametrize(("objective", "shape"), BASES, ids=lambda value: value)
@pytest.mark.parametrize("method", METHODS, ids=label)
def test_trains_or_is_refused(method: Any, objective: str, shape: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of the second half of training is below that of the first; memory, ours and theirs compute the same."""
    settings = {"method": method, "learning_rate": RATES[method.name], "epochs": 4}
    if reason := why_not(method, objective, shape):
        with pytest.raises(Refused, match=reason) as refused:
            tuned(objective, shape, run, **settings)
        assert refused.value.fix and not list((run.home / "artifacts").glob("adapter/*"))
        return
    in_memory: list[Any] = []
    real = tuning.published
    monkeypatch.setattr(tuning, "published", lambda module, *args, **more: in_memory.append(module) or real(module, *args, **more))
    made, head = tuned(objective, shape, run, **settings), OBJECTIVES[objective].head
    assert isinstance(made, Model if method.name in ("full", "freeze") else Adapter)
    assert made.manifest.facts["method"] == method.name and made.manifest.facts["head"] == head
    foreseen = made.manifest.facts["forecast"]  # from config.json and the rows, before a weight was loaded
    assert foreseen["trained_weights"] == made.manifest.facts["trainable"] and foreseen["activation_bytes"] > 10_000
    assert foreseen["flops"] == made.manifest.facts["ledger"]["flops"] and foreseen["steps"] == made.manifest.facts["ledger"]["steps"]
    losses = [loss for _, loss in made.manifest.facts["curve"]]
    half = len(losses) // 2
    assert sum(losses[half:]) / (len(losses) - half) < sum(losses[:half]) / half
    model, more = (made, {}) if isinstance(made, Model) else (made.base, {"adapter": made})
    ours = output(open_head(model, head, **more, dtype=torch.float32).module)
    assert np.allclose(output(in_memory[0]), ours, atol=1e-5)
    if method.name != "bottleneck":  # peft has none
        assert np.allclose(output(plain(made, head)), ours, atol=1e-5)
    OBJECTIVES[objective].use(model, **more)


@pytest.mark.parametrize("shape", ["t5", "bart"])
@pytest.mark.parametrize("method", VIRTUAL, ids=label)
@torch.no_grad()
def test_an_encoder_decoder_writes_with_virtual_tokens_as_its_forward_pass_does(method: Any, shape: str, run: Run) -> None:
    """Greedy answers, token by token, of prompts of two lengths; without the method they are others."""
    opened = open_head(base(shape, run), "seq2seq_lm", dtype=torch.float32)
    torch.manual_seed(0)
    for parameter in opened.module.parameters():  # else a T5 this small writes one token whatever it reads
        if parameter.dim() > 1:
            parameter.normal_(0, 0.4)
    asked = [Conversation((Message("user", text),)) for text in ("1 and 2?", "How many are there?")]
    before = [answer.token_ids for answer in Seq2SeqCompleter(opened.model, opened=opened).complete(asked, Sampling(max_tokens=5))]
    module = methods.attach(opened.module, method, tokenizer=opened.tokenizer).eval()
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape) * 0.5)
    tuned_one = Opened(module, opened.tokenizer, opened.model, None, "seq2seq_lm")
    answers = Seq2SeqCompleter(opened.model, opened=tuned_one).complete(asked, Sampling(max_tokens=5))
    assert [answer.token_ids for answer in answers] != before
    for conversation, answer in zip(asked, answers, strict=True):
        read_1T = torch.tensor([encode(opened.tokenizer, conversation.messages[0].content).token_ids])
        ids = [module.config.decoder_start_token_id]
        while len(ids) < 6 and (len(ids) == 1 or ids[-1] != opened.tokenizer.eos_token_id):
            made = module(
                input_ids=read_1T, attention_mask=torch.ones_like(read_1T), decoder_input_ids=torch.tensor([ids]), use_cache=False
            )
            ids.append(int(made.logits[0, -1].argmax()))
        written = [token for token in ids[1:] if token != opened.tokenizer.eos_token_id]
        assert list(answer.token_ids) == written


ENDS: dict[str, dict[str, Any]] = {
    "classifier": {"method": Full()},
    "embedder": {"method": LoRA(rank=2), "micro_batch_tokens": 30},  # each step in parts
    "masked_lm": {"method": Full()},
    "seq2seq": {"method": LoRA(rank=2)},
}
SHAPE = {"classifier": "bert", "embedder": "roberta", "masked_lm": "roberta", "seq2seq": "t5"}


@pytest.mark.parametrize("objective", ENDS)
def test_killed_and_told_to_stop_and_resumed_is_uninterrupted(objective: str, run: Run, killed_at: Callable[[int], Run]) -> None:
    """A kill in step 2, SIGTERM in step 3, and the same command to the end: the same bytes, curve and count."""
    settings = {**ENDS[objective], "epochs": 3}
    whole = tuned(objective, SHAPE[objective], run, **settings)
    with pytest.raises(Killed):
        tuned(objective, SHAPE[objective], killed_at(2), **settings)
    told = killed_at(0)
    told.listeners.append(lambda event: terminate() if event["event"] == "log" and event["training_step"] == 3 else None)
    with pytest.raises(Stopped, match="The state after step 3 of") as stopped:
        tuned(objective, SHAPE[objective], told, **settings)
    assert stopped.value.exit_code == 143
    last, notes = killed_at(0), list[str]()
    last.listeners.append(lambda event: notes.append(event["text"]) if event["event"] == "note" else None)
    again = tuned(objective, SHAPE[objective], last, **settings)
    assert any(text.startswith("Going on from step 3 of") for text in notes)
    assert again.manifest.content == whole.manifest.content
    facts, others = whole.manifest.facts, again.manifest.facts
    assert facts["curve"] == others["curve"] and facts["held_out"] == others["held_out"]
    counted = ("steps", "real_tokens", "trained_tokens", "computed_tokens", "flops")
    assert [facts["ledger"][key] for key in counted] == [others["ledger"][key] for key in counted]
    assert facts["ledger"]["flops"] > 0 and facts["ledger"]["computed_tokens"] >= facts["ledger"]["real_tokens"] == facts["tokens"]
    assert not list((run.home / "checkpoints").glob("*"))


@pytest.mark.parametrize("objective", ["classifier", "seq2seq"])
def test_told_to_stop_while_it_is_measured(objective: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is kept, though no checkpoint was due, and the handler of before is back; the same command measures and publishes."""
    settings, before = {"checkpoint_seconds": 3600}, signal.getsignal(signal.SIGTERM)
    module = f"mygpt.finetune.{objective}.held_out_scores"
    with monkeypatch.context() as patched, pytest.raises(Stopped, match=r"All \d+ steps are kept in"):
        patched.setattr(module, lambda *_, **__: terminate())
        tuned(objective, SHAPE[objective], run, **settings)
    assert signal.getsignal(signal.SIGTERM) is before
    logged: list[Any] = []
    run.listeners.append(lambda event: logged.append(event["event"]))
    again = tuned(objective, SHAPE[objective], run, **settings)
    assert "log" not in logged and signal.getsignal(signal.SIGTERM) is before
    run.fresh = True
    assert tuned(objective, SHAPE[objective], run, **settings).digest == again.digest
    assert not list((run.home / "checkpoints").glob("*"))


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("objective", "named"),
    [("classifier", r"\d \([a-z ]+\)"), ("embedder", r"\d \(\d\)"), ("masked_lm", r"\d+ \(.*, window \d\)"), ("seq2seq", r"\d \(\d\d\)")],
)
def test_a_loss_that_is_no_number_names_its_rows(objective: str, named: str, run: Run) -> None:
    """A rate that ruins the weights in the first step: the state after it is kept, nothing is made, the same again is refused."""
    ruined = {"learning_rate": 1e25, "epochs": 3}
    with pytest.raises(MygptError, match=rf"The (loss|gradient) became nan at step 2 of \d+ .* on the examples {named}") as error:
        tuned(objective, SHAPE[objective], run, **ruined)
    assert error.value.fix.startswith("Use a smaller `learning_rate`, for example 2e+24.")
    assert [p.name for p in (run.home / "checkpoints").glob("*/step-*")] == ["step-1"]
    with pytest.raises(Refused, match="has failed before"):
        tuned(objective, SHAPE[objective], run, **ruined)
