"""Bottleneck adapters: the residual by hand, where they stand, and rows of a batch through different ones."""

from pathlib import Path

import pytest
import torch

from mygpt.core.errors import Damaged, Refused
from mygpt.lm.adapter_rows import BASE, adapter_rows
from mygpt.lm.adapters import bottleneck
from mygpt.lm.adapters.bottleneck import Adapter, Bottleneck, adapters_of, attach
from mygpt.lm.layers import layers
from tests.infer.tiny_models import tiny_module
from tests.lm import tuned


def test_by_hand() -> None:
    """h = (1, 2), down = (1 1), so 3; gelu(3) = 3 * 0.99865 = 2.99595; up = (2; 0): (1 + 5.9919, 2)."""
    one = Adapter(2, 1)
    with torch.no_grad():
        one.down.weight.copy_(torch.tensor([[1.0, 1.0]]))
        one.up.weight.copy_(torch.tensor([[2.0], [0.0]]))
    assert one(torch.tensor([1.0, 2.0])).tolist() == pytest.approx([6.9919, 2.0], abs=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "phi"])
def test_stands_between_a_part_and_the_stream(architecture: str) -> None:
    """What the attention and the feed-forward part give back is what they gave back before, with the residual network after it."""
    plain, module = tiny_module(architecture), tuned.disturbed(Bottleneck(size=4), architecture)
    carried = adapters_of(module)
    assert carried is not None
    hidden_BTD = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    name = layers(plain)[1][0]
    own, other = plain.get_submodule(f"{name}.mlp"), module.get_submodule(f"{name}.mlp")
    expected = carried.named.get_submodule("default.1.mlp")(own(hidden_BTD))
    assert torch.allclose(other(hidden_BTD), expected, atol=1e-5)
    assert (expected - own(hidden_BTD)).abs().max() > 0.01


def test_size() -> None:
    """Two layers of two networks: 32 -> 4 -> 32 with both biases."""
    module = attach(tiny_module("llama"), Bottleneck(size=4))
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == 2 * 2 * (2 * 32 * 4 + 4 + 32)
    assert [name for name, _ in layers(module)] == ["model.layers.0", "model.layers.1"]  # they are no layers of the model


def test_rows(tmp_path: Path) -> None:
    module = tiny_module("llama")
    alone = {BASE: tuned.logits(module)}
    for seed, name in enumerate(("one", "two"), start=1):
        made = tuned.disturbed(Bottleneck(size=4), seed=seed)
        alone[name] = tuned.logits(made)
        tuned.saved(made, Bottleneck(size=4), tmp_path / name)
        bottleneck.load(module, tmp_path / name, name=name)
    names = ["two", BASE, "one"]
    with adapter_rows(module, names):
        mixed = tuned.logits(module)
    for b, name in enumerate(names):
        assert torch.allclose(mixed[b], alone[name][b], atol=1e-5)
    assert torch.allclose(tuned.logits(module), alone["one"], atol=1e-5)  # without names: the first


def test_experts_are_refused() -> None:
    with pytest.raises(Refused, match="in one linear layer each"):
        attach(tiny_module("gpt_oss"), Bottleneck())


def test_a_file_that_does_not_fit(tmp_path: Path) -> None:
    folder = tuned.saved(tuned.attached(Bottleneck(size=4)), Bottleneck(size=4), tmp_path / "a")
    settings = folder / "adapter_config.json"
    settings.write_text(settings.read_text().replace('"size": 4', '"size": 5'))
    with pytest.raises(Damaged, match="does not hold bottleneck adapters for this base"):
        bottleneck.load(tiny_module("llama"), folder, name="default")
