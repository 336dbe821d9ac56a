"""IA3: what is multiplied, by hand, and where."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mygpt.lm.adapters.ia3 import IA3, attach
from tests.infer.tiny_models import tiny_module


def test_by_hand() -> None:
    """Keys: l * (W x), with W = (1 2; 3 4), x = (1, 1), l = (10, 100): (30, 700). Feed-forward: W (l * x), with l = (2, 3, 5)."""
    sizes = {"hidden_size": 2, "intermediate_size": 3, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    module = LlamaForCausalLM(LlamaConfig(vocab_size=8, head_dim=2, **sizes)).eval()
    with torch.no_grad():
        module.model.layers[0].self_attn.k_proj.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        module.model.layers[0].mlp.down_proj.weight.copy_(torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]))
    layer = attach(module, IA3()).base_model.model.model.layers[0]
    keys, inner = layer.self_attn.k_proj, layer.mlp.down_proj
    assert keys(torch.ones(2)).tolist() == [3.0, 7.0]
    with torch.no_grad():
        keys.ia3_l["default"].copy_(torch.tensor([[10.0], [100.0]]))
        inner.ia3_l["default"].copy_(torch.tensor([[2.0, 3.0, 5.0]]))
    assert keys(torch.ones(2)).tolist() == [30.0, 700.0]
    assert inner(torch.tensor([1.0, 1.0, 2.0])).tolist() == [2 + 3 + 10.0, 3.0]


def test_one_number_for_each_channel() -> None:
    """Of llama: 16 keys, 16 values and 48 inner activations a layer; GPT-2 makes queries, keys and values (96) together."""
    for architecture, expected in (("llama", 2 * (16 + 16 + 48)), ("gpt2", 2 * (96 + 48)), ("granite", 2 * (16 + 16 + 48))):
        module = attach(tiny_module(architecture), IA3())
        assert sum(p.numel() for p in module.parameters() if p.requires_grad) == expected
