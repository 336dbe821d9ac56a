"""Where layers, attention and feed-forward parts are, across architectures, without a table of their names."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration, BertConfig, BertModel, BloomConfig, BloomForCausalLM

from mygpt.core.errors import Refused
from mygpt.lm.layers import attention_names, layers, mlp_names, output_names
from tests.infer.tiny_models import tiny_module


def bert() -> Any:
    return BertModel(BertConfig(vocab_size=20, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48))


def bart() -> Any:
    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    return BartForConditionalGeneration(BartConfig(vocab_size=20, d_model=32, encoder_ffn_dim=48, decoder_ffn_dim=48, **layers))


def bloom() -> Any:
    return BloomForCausalLM(BloomConfig(vocab_size=20, hidden_size=32, n_layer=2, n_head=4))


@pytest.mark.parametrize(
    ("make", "names", "ends"),
    [
        (lambda: tiny_module("llama"), ["model.layers.0", "model.layers.1"], ("self_attn.o_proj", "mlp.down_proj")),
        (lambda: tiny_module("gpt2"), ["transformer.h.0", "transformer.h.1"], ("attn.c_proj", "mlp.c_proj")),
        (lambda: tiny_module("phi"), ["model.layers.0", "model.layers.1"], ("self_attn.dense", "mlp.fc2")),
        (bloom, ["transformer.h.0", "transformer.h.1"], ("self_attention.dense", "mlp.dense_4h_to_h")),
        (bert, ["encoder.layer.0", "encoder.layer.1"], ("attention.output.dense", "output.dense")),
        (bart, [f"model.{side}.layers.{i}" for side in ("encoder", "decoder") for i in (0, 1)], ("self_attn.out_proj", "fc2")),
    ],
    ids=["llama", "gpt2", "phi", "bloom", "bert", "bart"],
)
def test_found(make: Any, names: list[str], ends: tuple[str, str]) -> None:
    torch.manual_seed(0)
    module = make()
    found = layers(module)
    assert [name for name, _ in found] == names
    assert [module.get_submodule(name) for name in names] == [layer for _, layer in found]
    assert output_names(module, found[-1][1]) == ends
    own = [name for name, part in found[0][1].named_modules() if type(part).__name__ in ("Linear", "Conv1D")]
    assert sorted(attention_names(found[0][1]) + mlp_names(found[0][1])) == sorted(own)


def test_no_transformer() -> None:
    with pytest.raises(Refused, match="No layers with attention were found in a Sequential"):
        layers(nn.Sequential(nn.Linear(2, 2)))
