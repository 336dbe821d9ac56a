"""Memory by part, worked by hand where it can be, and against what autograd keeps on real tensors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.core.errors import Refused
from mygpt.lm.attention import grouped_attention
from mygpt.training import forecast as module_under_test
from mygpt.training.activations import ForwardPass, activation_bytes, decoder_pass, packed_rows_of, rows_of
from mygpt.training.forecast import Forecast, forecast_training, require_fit
from mygpt.training.machine import remember_share
from mygpt.training.steps import Examples
from tests.training import tiny
from tests.training.kept import kept_bytes
from tests.training.test_flops import lora, only

CPU = torch.device("cpu")
PLAN = [[[0, 1], [2]], [[3]]]
LENGTHS, LABELS = [4, 6, 9, 5], [2, 3, 4, 1]


def meta(architecture: str, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(getattr(tiny, architecture)().config, dtype=dtype).eval()


@pytest.fixture
def foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Forecast]:
    monkeypatch.setattr(module_under_test, "matmul_flops_per_second", lambda device, dtype, home: 1e6)
    forward = ForwardPass(decoder_pass, rows_of(LENGTHS))
    settings = {"plan": PLAN, "examples": Examples((), LENGTHS, LABELS), "forward": forward, "device": CPU, "home": tmp_path}
    return lambda module, **changes: forecast_training(module, **{**settings, "process_bytes": 1000, **changes})


def test_parts_by_hand(foreseen: Callable[..., Forecast]) -> None:
    """2 x 9,728 weights of llama's layers with their norms, the last norm, 64 x 32 words; all trained, in bfloat16."""
    layer = 32 * 32 * 2 + 32 * 16 * 2 + 32 * 48 * 3 + 2 * 32
    weights = 2 * layer + 32 + 64 * 32
    one = foreseen(meta("llama", torch.bfloat16).requires_grad_(True))
    assert (one.weights_bytes, one.gradient_bytes, one.optimizer_bytes) == (2 * weights, 2 * weights, 12 * weights)
    assert one.logits_bytes == 5 * 64 * (2 + 12)  # 2 + 3 labels in the first micro-batch
    assert one.activation_bytes and one.holes_bytes == round(0.6 * (one.activation_bytes + one.logits_bytes))
    in_chunks = foreseen(meta("llama", torch.bfloat16), forward=ForwardPass(decoder_pass, rows_of(LENGTHS), most_labels=3))
    assert in_chunks.logits_bytes == 3 * 64 * (2 + 12)
    flops = 6 * (2 * layer - 4 * 32) * 24 + 6 * 64 * 32 * 10 + 12 * 2 * 32 * (16 + 36 + 81 + 25)
    assert one.flops == flops and one.seconds == pytest.approx(flops / (1e6 * 0.1))


def test_time_is_learnt_from_the_last_training_of_the_kind(foreseen: Callable[..., Forecast], tmp_path: Path) -> None:
    one = foreseen(meta("llama").requires_grad_(True))
    remember_share(one.kind, 0.2, tmp_path)
    assert foreseen(meta("llama").requires_grad_(True)).seconds == pytest.approx(one.seconds / 2)
    assert foreseen(only(lambda module: module.model.norm)(meta("llama"))).kind != one.kind  # other work
    assert "llama 2 x 32, 100.0% trained" in one.kind


def test_the_most_at_once() -> None:
    parts = {"weights_bytes": 100, "gradient_bytes": 20, "optimizer_bytes": 120, "logits_bytes": 7, "process_bytes": 1000}
    parts["holes_bytes"] = 3
    rest: dict[str, Any] = {"seconds": 1.0, "flops": 1.0, "steps": 1, "tokens": 1, "kind": ""}
    assert Forecast(**parts, **rest, activation_bytes=50, trained_weights=10).bytes == 1000 + 100 + 120 + 20 + 50 + 7 + 3
    assert Forecast(**parts, **rest, activation_bytes=1, trained_weights=10).bytes == 1000 + 100 + 120 + 40  # float32 gradients
    assert Forecast(**{**parts, "weights_bytes": 500}, **rest, activation_bytes=50, trained_weights=10).bytes == 1000 + 2 * 500


@pytest.mark.parametrize("method", [lambda module: module.requires_grad_(True), lora, only(lambda module: _layers(module)[1])])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_activations_are_those_that_autograd_keeps(architecture: str, method: Any) -> None:
    """A real forward pass of the same shape, in which every kept tensor is weighed."""
    module = method(tiny.ARCHITECTURES[architecture]())
    ids_BT = torch.ones(3, 17, dtype=torch.long)
    with grouped_attention(module):
        real = kept_bytes(module, lambda: module.get_decoder()(input_ids=ids_BT, use_cache=False))
    without_data = method(meta(architecture))
    assert activation_bytes(without_data, decoder_pass, (3, 17), device=CPU) == pytest.approx(real, rel=0.02)
    assert real > 10_000


@pytest.mark.parametrize("tokens", [3, 40])  # few queries and many: on some processors both have kernels of their own
def test_layers_below_those_that_move_keep_nothing_in_bfloat16_either(tokens: int) -> None:
    def last_layer(module: Any) -> Any:
        return only(lambda module: module.model.layers[1])(module)

    wide: dict[str, Any] = {"hidden_size": 128, "head_dim": 32}
    ids_BT = torch.ones(2, tokens, dtype=torch.long)
    module = last_layer(tiny.llama(**wide).bfloat16())
    with grouped_attention(module):
        real = kept_bytes(module, lambda: module.get_decoder()(input_ids=ids_BT, use_cache=False))
    with torch.device("meta"):
        without_data = last_layer(type(module)._from_config(module.config, dtype=torch.bfloat16).eval())
    foreseen_bytes = activation_bytes(without_data, decoder_pass, (2, tokens), device=CPU)
    assert foreseen_bytes == pytest.approx(real, rel=0.02) and real > 10_000


def _layers(module: Any) -> Any:
    return module.transformer.h if hasattr(module, "transformer") else module.model.layers


def test_an_architecture_that_looks_at_values_is_said_to_be_unknown(
    foreseen: Callable[..., Forecast], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = meta("llama").requires_grad_(True)
    inner = module.model.forward

    def looks(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs) if bool(kwargs["input_ids"].sum() > 0) else None

    monkeypatch.setattr(module.model, "forward", looks)
    longer = [n + 1 for n in LENGTHS]
    one = foreseen(module, examples=Examples((), longer, LABELS), forward=ForwardPass(decoder_pass, rows_of(longer)))
    assert one.activation_bytes is None and "activations unknown" in one.told()


def test_what_does_not_fit_is_refused_with_what_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(activations: int) -> Forecast:
        return Forecast(2 * 10**9, 10**8, 10**9, activations, 10**8, 0, 3 * 10**8, 90.0, 1e9, 10**7, 1, 1, "")

    require_fit(of(10**9), limit_bytes=5 * 10**9, changes=[])
    changes = [("`--set a=1`", of(6 * 10**9)), ("`--set a=2`", of(10**9)), ("`--set b=1`", of(10**8))]
    with pytest.raises(Refused) as refused:
        require_fit(of(12 * 10**9), limit_bytes=5 * 10**9, changes=changes)
    assert refused.value.what == (
        "Training needs about 15.5 GB of memory (process 0.30, weights 2.00, gradients 0.10, optimiser 1.00, activations 12.0, logits 0.10,"
        " holes 0.00) and 90 s, and this machine has 5.00 GB."
    )
    assert refused.value.fix == "Try `--set a=2` (4.50 GB), or `--set b=1` (4.30 GB)." and refused.value.exit_code == 3
    with pytest.raises(Refused) as refused:
        require_fit(of(12 * 10**9), limit_bytes=10**9, changes=changes)
    assert refused.value.fix == "Choose a smaller model, or a machine with more memory."


def test_the_largest_micro_batch_is_the_one_that_counts(foreseen: Callable[..., Forecast], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(module_under_test, "activation_bytes", lambda module, run, shape, device: seen.append(shape) or 1)
    foreseen(meta("llama").requires_grad_(True))
    assert seen == [(2, 6)]  # 12 padded tokens; the one of 9 is longer and smaller
    assert packed_rows_of(LENGTHS)([0, 1, 3]) == (3, 6)  # 15 tokens in one row
