"""Freezing: which layers and names move, and at which share of the rate."""

from typing import Any

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from mygpt.core.errors import UsageError
from mygpt.lm.adapters.freeze import Freeze, attach, rate_factors
from tests.infer.tiny_models import tiny_module


def moving(method: Freeze, module: Any = None) -> set[str]:
    """Where the parameters that move are: their names to the layer, or whole."""
    made = attach(module or tiny_module("llama", num_hidden_layers=3), method)
    names = [name for name, p in made.named_parameters() if p.requires_grad]
    return {".".join(name.split(".")[:3]) if ".layers." in name or ".block." in name else name for name in names}


def test_first_and_last() -> None:
    assert moving(Freeze(num_layers=1)) == {"model.layers.2"}
    assert moving(Freeze(num_layers=2, layers="first")) == {"model.layers.0", "model.layers.1"}
    with pytest.raises(UsageError, match="4 layers were to be trained, and the model has 3"):
        moving(Freeze(num_layers=4))


def test_an_encoders_layers_come_first() -> None:
    sizes = {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_heads": 2, "num_layers": 2}
    torch.manual_seed(0)
    module = T5ForConditionalGeneration(T5Config(**sizes))
    assert moving(Freeze(num_layers=3), module) == {"encoder.block.1", "decoder.block.0", "decoder.block.1"}


def test_by_name() -> None:
    assert moving(Freeze(pattern=r"layers\.1\.|^model\.norm")) == {"model.layers.1", "model.norm.weight"}
    assert len(moving(Freeze(pattern=".*"))) == 3 + 3  # layers; embeddings, last norm, head
    with pytest.raises(UsageError, match=r"No parameter has `layer\.9` in its name"):
        moving(Freeze(pattern="layer.9"))
    with pytest.raises(UsageError, match="is not a regular expression"):
        moving(Freeze(pattern="("))


def test_rates_fall_towards_the_entrance() -> None:
    """Three layers, decay 0.5: the head and the last norm move at 1, layers at 1, 0.5, 0.25, embeddings at 0.125."""
    method = Freeze(pattern=".*", layer_decay=0.5)
    factors = rate_factors(attach(tiny_module("llama", num_hidden_layers=3), method), method)
    told = {"lm_head.weight": 1.0, "model.norm.weight": 1.0, "model.embed_tokens.weight": 0.125}
    assert {name: factors[name] for name in told} == told
    assert [factors[f"model.layers.{i}.mlp.up_proj.weight"] for i in range(3)] == [0.25, 0.5, 1.0]
