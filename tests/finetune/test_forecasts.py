"""What each objective will need, foreseen from config.json and the rows: weights by hand, activations against those of the real loss."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from mygpt.artifacts.dataset import Dataset, row_facts, write_labelled
from mygpt.artifacts.recipe import publish, recipe
from mygpt.cli.main import main
from mygpt.core.config import Config
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.finetune import classifier, embedder, masked_lm, seq2seq, span_corruption, tagger
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from mygpt.training import fit, tuning
from tests.finetune import label_data, shapes
from tests.finetune.objectives import FAST, OBJECTIVES, base
from tests.training.kept import kept_bytes

FORECASTS: dict[str, Callable[..., dict[str, Any]]] = {
    "classifier": classifier.classifier_forecast,
    "tagger": tagger.tagger_forecast,
    "embedder": embedder.embedder_forecast,
    "masked_lm": masked_lm.masked_lm_forecast,
    "span_corruption": span_corruption.span_corruption_forecast,
    "seq2seq": seq2seq.seq2seq_forecast,
}
ON = {"classifier": "bert", "tagger": "bert", "embedder": "bert", "masked_lm": "bert", "span_corruption": "t5", "seq2seq": "bart"}
LOSSES = {  # by objective: where its recipe finds the forward pass that a gradient goes through
    "classifier": (classifier, "summed_label_loss"),
    "tagger": (tagger, "summed_token_loss"),
    "embedder": (embedder, "embedded"),
    "masked_lm": (masked_lm, "summed_masked_loss"),
    "span_corruption": (span_corruption, "summed_answer_loss"),
    "seq2seq": (seq2seq, "summed_answer_loss"),
}


def told(objective: str, shape: str, run: Run, **changes: Any) -> dict[str, Any]:
    one = OBJECTIVES[objective]
    config, data = one.config(**{**FAST, **one.settings, **changes}), one.data(label_data.Nothing(), run=run)
    return FORECASTS[objective](config, model=base(shape, run), dataset=data, home=run.home)


# 272 words (16 special ones and 256 bytes), 32 wide, 48 inside, 2 layers, 128 places
_ATTENTION, _INNER, _NORM = 4 * (32 * 32 + 32), 32 * 48 + 48 + 48 * 32 + 32, 2 * 32
_BERT = (272 + 128 + 2) * 32 + _NORM + 2 * (_ATTENTION + _INNER + 2 * _NORM)
_POOLER = 32 * 32 + 32
_BART_ENDS = 2 * (130 * 32 + _NORM)  # positions begin at 2
_T5_ATTENTION, _T5_INNER = 4 * 32 * 32, 2 * 32 * 48
WEIGHTS = {
    "classifier": _BERT + _POOLER + 2 * 32 + 2,  # cold or hot
    "tagger": _BERT + 5 * 32 + 5,  # O and two kinds with a first and an inner word
    "embedder": _BERT + _POOLER,
    "masked_lm": _BERT + 32 * 32 + 32 + _NORM + 272,  # the words are the head's matrix too
    "seq2seq": 272 * 32 + _BART_ENDS + 2 * (_ATTENTION + _INNER + 2 * _NORM) + 2 * (2 * _ATTENTION + _INNER + 3 * _NORM),
    "span_corruption": 272 * 32  # norms without a bias; distances in 32 buckets, for each head, told to both stacks
    + 2 * (32 * 4 + 32)
    + 2 * (_T5_ATTENTION + _T5_INNER + 2 * 32)
    + 2 * (2 * _T5_ATTENTION + _T5_INNER + 3 * 32),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_weights_gradients_and_optimiser_by_hand(objective: str, run: Run) -> None:
    weights = WEIGHTS[objective]
    every, halved = (told(objective, ON[objective], run, precision=precision) for precision in ("float32", "bfloat16"))
    assert every["trained_weights"] == weights
    assert (every["weights_bytes"], every["gradient_bytes"], every["optimizer_bytes"]) == (4 * weights, 4 * weights, 12 * weights)
    assert (halved["weights_bytes"], halved["gradient_bytes"], halved["optimizer_bytes"]) == (2 * weights, 2 * weights, 12 * weights)


@pytest.mark.parametrize(
    ("objective", "shape", "method"),
    [
        *((*pair, Full()) for pair in ON.items()),
        *(("classifier", "t5", Full()), ("tagger", "gpt2", Full()), ("embedder", "llama", Full())),
        *(("classifier", "llama", LoRA(rank=2)), ("masked_lm", "bert", LoRA(rank=2)), ("seq2seq", "t5", LoRA(rank=2))),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_activations_are_those_that_the_real_loss_keeps(
    objective: str, shape: str, method: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every micro-batch of a real training is weighed. Beside what was foreseen, a loss keeps only what it makes of its few logits."""
    place, name = LOSSES[objective]
    real, weighed = getattr(place, name), list[int]()

    def weigh(module: Any, *rest: Any) -> Any:
        if not torch.is_grad_enabled() or isinstance(next(module.parameters()), FakeTensor):  # held-out rows; the forecast itself
            return real(module, *rest)
        made: list[Any] = []
        weighed.append(kept_bytes(module, lambda: made.append(real(module, *rest))))
        return made[0]

    monkeypatch.setattr(place, name, weigh)
    one = OBJECTIVES[objective]
    settings = {**FAST, **one.settings, "method": method, "epochs": 1}
    made = one.recipe(one.config(**settings), model=base(shape, run), dataset=one.data(label_data.Nothing(), run=run), run=run)
    foreseen = made.manifest.facts["forecast"]
    assert len(weighed) >= foreseen["steps"] > 1
    assert 0.99 * foreseen["activation_bytes"] <= max(weighed) <= 1.01 * foreseen["activation_bytes"] + foreseen["logits_bytes"]
    assert foreseen["trained_weights"] == made.manifest.facts["trainable"]
    ledger = made.manifest.facts["ledger"]
    assert (foreseen["flops"], foreseen["steps"], foreseen["tokens"]) == (ledger["flops"], ledger["steps"], ledger["real_tokens"])


def test_of_a_step_in_parts_one_micro_batch_is_in_memory(run: Run) -> None:
    """The six texts of three pairs at once, or two at a time (of 32 tokens at most, as long as the longest)."""
    whole, parts = (told("embedder", "bert", run, micro_batch_tokens=tokens) for tokens in (2048, 64))
    assert whole["activation_bytes"] > 2 * parts["activation_bytes"] > 0
    assert whole["steps"] == parts["steps"] == 4 and whole["flops"] == parts["flops"]
    assert whole["logits_bytes"] == parts["logits_bytes"] == 3 * 4 * (4 + 12)  # two answers of others, Nobody, and one's own


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_does_not_fit_is_refused_before_weights_are_loaded(objective: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between what half the micro-batch needs and what all of it needs."""
    one, many = OBJECTIVES[objective], {"step_tokens": 4096} if objective != "embedder" else {"step_pairs": 6}
    monkeypatch.setattr(fit, "resident_bytes", lambda device: 0)
    method = LoRA(rank=2)
    needs = {n: told(objective, ON[objective], run, method=method, **many, micro_batch_tokens=n)["bytes"] for n in (128, 64)}
    assert needs[128] > 1.2 * needs[64]
    monkeypatch.setattr(fit, "memory_limit_bytes", lambda device: sum(needs.values()) // 2)
    monkeypatch.setattr(tuning, "open_head", None)
    config = one.config(**{**FAST, **one.settings, "method": method, **many, "micro_batch_tokens": 128})
    dataset = one.data(label_data.Nothing(), run=run)
    with pytest.raises(Refused, match=r"Training needs about .* and this machine has ") as refused:
        one.recipe(config, model=base(ON[objective], run), dataset=dataset, run=run)
    assert refused.value.fix.startswith("Try `--set micro_batch_tokens=64` (") and refused.value.exit_code == 3
    assert not list((run.home / "artifacts").glob("adapter/*"))


def test_what_would_not_train_is_not_advised(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter is named first, where the head allows one: a new masked-language head shares its matrix with the embeddings."""
    one = OBJECTIVES["masked_lm"]
    config, dataset = one.config(**{**FAST, **one.settings}), one.data(label_data.Nothing(), run=run)
    monkeypatch.setattr(fit, "resident_bytes", lambda device: 0)
    for head, begins in (("masked_lm", "Try `--set method=lora` ("), ("embedder", "Try `--set micro_batch_tokens=64` (")):
        model = shapes.base(shapes.BaseConfig(shape="bert", head=head), run=run)
        needs = masked_lm.masked_lm_forecast(config, model=model, dataset=dataset, home=run.home)["bytes"]
        with monkeypatch.context() as limited, pytest.raises(Refused) as refused:
            limited.setattr(fit, "memory_limit_bytes", lambda device, needs=needs: needs - 1)
            masked_lm.masked_lm_forecast(config, model=model, dataset=dataset, home=run.home)
        assert refused.value.fix.startswith(begins)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_dry_run_foresees_without_weights(
    objective: str, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = OBJECTIVES[objective]
    dataset, model = one.data(label_data.Nothing(), run=run), base(ON[objective], run)
    monkeypatch.setattr(tuning, "open_head", None)
    named = ["--model", model.id, "--dataset", dataset.id, "--home", str(run.home)]
    with pytest.raises(SystemExit) as ended:
        main(["finetune", objective, *named, "--dry-run", "--set", "precision=float32", "--set", "epochs=2"])
    assert ended.value.code == 0
    foreseen = json.loads(capsys.readouterr().out)["forecast"]
    assert foreseen["trained_weights"] == WEIGHTS[objective] and foreseen["needs"].startswith("about ")
    assert foreseen["examples"] > 3 and foreseen["longer_than_allowed"] == 0 and foreseen["tokens"] > 2 * foreseen["examples"]


class Empty(Config):
    pass


@recipe
def empty(config: Empty, *, run: Run) -> Dataset:
    splits: dict[str, Any] = {"train": []}
    facts = row_facts("class", splits, labels=["cold", "hot"])
    return publish(Dataset, run, lambda folder: write_labelled(folder, splits), facts=facts, name="empty")


def test_an_empty_set_needs_nothing(run: Run) -> None:
    config, dataset = classifier.ClassifierConfig(), empty(Empty(), run=run)
    found = classifier.classifier_forecast(config, model=base("bert", run), dataset=dataset, home=run.home)
    assert found["examples"] == 0 and "refused" in found["needs"]
