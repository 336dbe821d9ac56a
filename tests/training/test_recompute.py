"""Layers computed again: refused where there are none. That nothing else changes is in test_contracts.py."""

import pytest
import torch

from mygpt.core.errors import Refused
from mygpt.training.losses import hidden_states
from mygpt.training.recompute import recompute_layers
from tests.training import tiny


def test_a_model_without_known_layers_is_refused() -> None:
    with pytest.raises(Refused, match="Linear has no layers that can be computed again") as refused:
        recompute_layers(torch.nn.Linear(2, 2))
    assert "`recompute`" in refused.value.fix


def test_dropout_stays_off_and_the_switch_of_training_mode_is_not_needed() -> None:
    """gpt2 has dropout of 0.1: two passes would differ if layers were put into training mode."""
    module = tiny.gpt2()
    with torch.no_grad():
        before = hidden_states(module, torch.arange(3, 20)[None])
    recompute_layers(module)
    again = [hidden_states(module, torch.arange(3, 20)[None]).detach() for _ in range(2)]
    assert torch.equal(again[0], again[1]) and torch.allclose(again[0], before, atol=1e-5)
    assert not any(layer.training for layer in module.modules())


def test_layers_below_an_adapter_are_found() -> None:
    """With the embeddings frozen, a layer's input needs no gradient: the adapter inside gets one all the same."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    module = get_peft_model(tiny.llama(), settings).eval()
    hidden_states(module, torch.arange(3, 20)[None]).square().sum().backward()
    plain = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    recompute_layers(module)
    hidden_states(module, torch.arange(3, 20)[None]).square().sum().backward()
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert found.keys() == plain.keys() and len(found) == 2 * 2 * 7  # two matrices, two layers, seven products
    assert all(torch.allclose(found[name], plain[name], rtol=1e-5, atol=1e-6) for name in found)
