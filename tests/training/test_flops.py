"""Operations counted by hand, and against torch's own counter of the products that really run."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mygpt.core.outbound import silence_hub
from mygpt.training.flops import Flops, flops_of
from mygpt.training.losses import summed_cross_entropy
from tests.training import tiny


def test_by_hand() -> None:
    """llama: 32 wide, 4 heads of 8, 2 for keys and values, 48 inside, 2 layers, 64 words; all trained."""
    layer = 32 * 32 * 2 + 32 * 16 * 2 + 32 * 48 * 3
    module = tiny.llama().requires_grad_(True)
    assert flops_of(module) == Flops(per_token=6 * 2 * layer, per_label=6 * 64 * 32, per_pair=12 * 2 * 32)
    # sequences of 3 and 5 tokens with 2 labels
    assert flops_of(module).of([3, 5], num_labels=2) == 6 * 2 * layer * 8 + 6 * 64 * 32 * 2 + 12 * 2 * 32 * (9 + 25)
    assert flops_of(tiny.llama().to("meta").requires_grad_(True)) == flops_of(module)


def lora(module: Any) -> Any:
    silence_hub()
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_peft_model(module, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"), autocast_adapter_dtype=False)


def test_adapters_by_hand() -> None:
    """4 for a frozen weight, 6 for the adapter's; nothing lies below the first projection and its adapter's first matrix."""
    layer, adapter = 32 * 32 * 2 + 32 * 16 * 2 + 32 * 48 * 3, 4 * (2 * 64 + 2 * 48 + 3 * 80)
    below = 2 * 32 * 32 + 2 * 4 * 32
    assert flops_of(lora(tiny.llama())) == Flops(2 * (4 * layer + 6 * adapter) - below, 4 * 64 * 32, 12 * 2 * 32)


def only(part: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def method(module: Any) -> Any:
        part(module.requires_grad_(False)).requires_grad_(True)
        return module

    return method


B, T, LABELS = 2, 24, 4
_SIDE_BY_SIDE = 2 * 32 * 16 * 2 + 2 * 4 * 32 * 2  # k and v beside q, and their adapters, a token (flops.py, "We differ")
_FORWARDS_UNCOUNTED = 4 * 32 * T  # torch does not count its flash kernel, which runs where no gradient is needed: a layer and token


@pytest.mark.parametrize(
    ("architecture", "method", "more_a_token"),
    [
        ("llama", lambda module: module.requires_grad_(True), 0),
        ("gpt2", lambda module: module.requires_grad_(True), 0),
        ("gpt2", lora, 0),  # one matrix for q, k and v
        ("llama", lora, _SIDE_BY_SIDE),
        ("llama", only(lambda module: module.model.layers[1]), _FORWARDS_UNCOUNTED - 2 * 32 * 32),  # the norm before q stands after it
        ("gpt2", only(lambda module: module.transformer.h[1]), _FORWARDS_UNCOUNTED),
        ("llama", only(lambda module: module.model.norm), 2 * _FORWARDS_UNCOUNTED),
        ("gpt2", only(lambda module: module.transformer.ln_f), 2 * _FORWARDS_UNCOUNTED),
    ],
)
def test_against_the_products_that_run(architecture: str, method: Any, more_a_token: int) -> None:
    module = method(getattr(tiny, architecture)())
    ids_BT = torch.randint(3, tiny.VOCABULARY, (B, T))
    trained_BT = torch.zeros(B, T, dtype=torch.bool)
    trained_BT[:, 5 : 5 + LABELS] = True
    with FlopCounterMode(display=False) as counter:
        summed_cross_entropy(module, ids_BT, trained_BT).backward()
    assert flops_of(module).of([T] * B, num_labels=B * LABELS) - counter.get_total_flops() == more_a_token * B * T


def test_trained_tokens_before_the_text_are_at_the_bottom() -> None:
    from peft import PromptTuningConfig, get_peft_model

    module = get_peft_model(tiny.llama(), PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))
    layer = 32 * 32 * 2 + 32 * 16 * 2 + 32 * 48 * 3
    assert flops_of(module).per_token == 4 * 2 * layer


def test_an_encoder_decoder_by_hand() -> None:
    """T5, 32 wide, 4 heads of 8, 48 inside, 2 layers each side, 64 words: of 5 tokens read and 3 written, 5 pass the encoder and 3 the
    decoder, whose layers have a second attention. All trained, so 6 a weight."""
    attention, inner = 4 * 32 * 32, 2 * 32 * 48
    encoder, decoder = 2 * (attention + inner), 2 * (2 * attention + inner)
    found = flops_of(tiny.family("t5").requires_grad_(True))
    assert found.of([8], num_labels=3) == 6 * (5 * encoder + 3 * decoder + 3 * 64 * 32) + found.per_pair * 64
    assert found.per_token == 6 * encoder


def test_of_the_experts_only_the_chosen_count() -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = tiny._sizes(num_local_experts=4, num_experts_per_tok=1)
    configs = [MixtralConfig(**{**sizes, "num_experts_per_tok": n}) for n in (1, 4)]
    one, all_four = (flops_of(MixtralForCausalLM(config).requires_grad_(True)) for config in configs)
    assert all_four.per_token - one.per_token == 6 * 2 * 3 * (3 * 32 * 48)
