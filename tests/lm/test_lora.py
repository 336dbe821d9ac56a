"""LoRA and its kinds against numbers worked by hand, and which layers are meant."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mygpt.core.errors import UsageError
from mygpt.lm.adapters.lora import LoRA, attach
from tests.infer.tiny_models import tiny_module


def two_wide(method: LoRA, *, w: list[list[float]], a: list[list[float]], b: list[list[float]]) -> Any:
    """The adapted query projection, 2 x 2, of a model that is two numbers wide."""
    sizes = {"hidden_size": 2, "intermediate_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    module = LlamaForCausalLM(LlamaConfig(vocab_size=8, head_dim=2, **sizes)).eval()
    with torch.no_grad():
        module.model.layers[0].self_attn.q_proj.weight.copy_(torch.tensor(w))
    layer = attach(module, method.model_copy(update={"targets": ("q_proj",)})).base_model.model.model.layers[0].self_attn.q_proj
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(torch.tensor(a))
        layer.lora_B["default"].weight.copy_(torch.tensor(b))
    return layer


IDENTITY = [[1.0, 0.0], [0.0, 1.0]]


def test_lora_by_hand() -> None:
    """x = (1, 1): A x = 3, B A x = (9, 12), alpha / rank = 4: W x + 4 (9, 12) = (37, 49)."""
    layer = two_wide(LoRA(rank=1, alpha=4), w=IDENTITY, a=[[1.0, 2.0]], b=[[3.0], [4.0]])
    assert layer(torch.tensor([1.0, 1.0])).tolist() == [37.0, 49.0]


@pytest.mark.parametrize(("stabilised", "expected"), [(False, [10.0, 13.0]), (True, [19.0, 25.0])])
def test_rank_stabilised_by_hand(stabilised: bool, expected: list[float]) -> None:
    """Rank 4, alpha 4: the factor is 4 / 4 = 1, or 4 / sqrt(4) = 2; B A x = (9, 12)."""
    zeros = [0.0, 0.0]
    method = LoRA(rank=4, alpha=4, rank_stabilised=stabilised)
    layer = two_wide(method, w=IDENTITY, a=[[1.0, 2.0], zeros, zeros, zeros], b=[[3.0, 0.0, 0.0, 0.0], [4.0, 0.0, 0.0, 0.0]])
    assert layer(torch.tensor([1.0, 1.0])).tolist() == expected


def test_dora_by_hand() -> None:
    """W = (3 4; 0 2) has rows of length 5 and 2. B A = (0 -4; 0 3) turns them into (3 0) and (0 5): directions (1 0) and (0 1), at the old
    lengths. x = (2, 7) gives 5 * 2 and 2 * 7."""
    method = LoRA(rank=1, alpha=1, weight_decomposed=True)
    layer = two_wide(method, w=[[3.0, 4.0], [0.0, 2.0]], a=[[0.0, 1.0]], b=[[-4.0], [3.0]])
    assert layer.lora_magnitude_vector["default"].weight.tolist() == [5.0, 2.0]
    assert layer(torch.tensor([[2.0, 7.0]]))[0].tolist() == pytest.approx([10.0, 14.0], abs=1e-5)


def targets(method: LoRA, architecture: str) -> set[str]:
    module = attach(tiny_module(architecture), method)
    adapted = [name.partition(".lora_A")[0] for name, _ in module.named_parameters() if ".lora_A" in name]
    return {name.partition(".0.")[2] for name in adapted if ".0." in name}


@pytest.mark.parametrize(
    ("method", "architecture", "expected"),
    [
        (LoRA(targets="attention-only"), "llama", {f"self_attn.{x}_proj" for x in "qkvo"}),
        (LoRA(targets="mlp-only"), "llama", {f"mlp.{x}_proj" for x in ("gate", "up", "down")}),
        (LoRA(), "llama", {*(f"self_attn.{x}_proj" for x in "qkvo"), *(f"mlp.{x}_proj" for x in ("gate", "up", "down"))}),
        (LoRA(targets=("q_proj", "v_proj")), "llama", {"self_attn.q_proj", "self_attn.v_proj"}),
        (LoRA(targets="attention-only"), "gpt2", {"attn.c_attn", "attn.c_proj"}),
        (LoRA(targets="mlp-only"), "gpt2", {"mlp.c_fc", "mlp.c_proj"}),
    ],
    ids=["llama attention", "llama mlp", "llama all", "llama list", "gpt2 attention", "gpt2 mlp"],
)
def test_targets(method: LoRA, architecture: str, expected: set[str]) -> None:
    assert targets(method, architecture) == expected


def test_a_target_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="no linear layer for `targets` c_attn") as error:
        attach(tiny_module("llama"), LoRA(targets=("q_proj", "c_attn")))
    assert "q_proj, k_proj, v_proj, o_proj" in error.value.fix
