"""Four bits: sixteen values for each scale, a fraction of the size, nearly the same answers, and words where the package is missing."""

import importlib.util
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from transformers import AutoModelForCausalLM

from mygpt.core.errors import UsageError
from mygpt.lm.adapters.lora import LoRA, attach
from mygpt.lm.quantized import is_quantized, keep_differentiable, nf4_settings
from mygpt.training.losses import summed_cross_entropy
from tests.lm import tuned
from tests.training import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.llama(hidden_size=64, intermediate_size=128, head_dim=16, vocab_size=259).save_pretrained(tmp_path)
    return tmp_path


def test_sixteen_values_a_block(folder: Path) -> None:
    """Dettmers et al. 2023, appendix E: NF4's values run from -1 to 1 by way of 0, here times the largest number of each block of 64."""
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    module = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=nf4_settings(torch.float32), device_map={"": "cpu"}
    ).eval()
    keep_differentiable(module)
    assert is_quantized(module) and not is_quantized(whole)
    own, kept = whole.model.layers[0].mlp.up_proj.weight, module.model.layers[0].mlp.up_proj.weight
    assert kept.quant_state.quant_type == "nf4" and kept.quant_state.nested
    blocks = dequantize_4bit(kept.data, kept.quant_state).view(-1, 64)
    shares = blocks / own.view(-1, 64).abs().amax(1, keepdim=True)
    below = [-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911]
    above = [0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.723, 1.0]
    levels = torch.tensor([*below, 0.0, *above])
    assert (shares[..., None] - levels).abs().amin(-1).max() < 0.06  # the scales are rounded too
    assert max(len(row.unique()) for row in blocks) <= 16
    assert kept.numel() * kept.element_size() == own.numel() // 2
    assert (tuned.logits(module) - tuned.logits(whole)).abs().mean() < 0.5 * tuned.logits(whole).std()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_the_same_weights_unpacked(folder: Path, dtype: torch.dtype) -> None:
    """In eval mode and after a pass without gradients, as every recipe does it: there bitsandbytes' own way loses them on some CPUs."""
    settings = {"quantization_config": nf4_settings(dtype), "device_map": {"": "cpu"}}
    quantized = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **settings).eval()
    keep_differentiable(quantized)
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    for name, part in quantized.named_modules():
        if isinstance(part, Linear4bit):
            whole.get_submodule(name).weight.data = dequantize_4bit(part.weight.data, part.weight.quant_state).to(dtype)
    found = []
    for module in (quantized, whole):
        torch.manual_seed(0)
        tuned_module = attach(module, LoRA(rank=2))
        with torch.no_grad():
            for _, parameter in tuned.trained(tuned_module):
                parameter.add_(torch.randn(parameter.shape) * 0.1)
            tuned.logits(tuned_module)
        summed_cross_entropy(tuned_module, tuned.IDS_BT, tuned.TRAINED_BT).backward()
        found.append({name: p.grad for name, p in tuned.trained(tuned_module)})
    for name, expected in found[1].items():
        apart = (found[0][name] - expected).norm() / expected.norm()
        assert float(apart) < (1e-4 if dtype == torch.float32 else 0.1), name


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "bitsandbytes" else real(name, *more))
    with pytest.raises(UsageError, match="bitsandbytes, which is not installed") as error:
        nf4_settings(torch.float32)
    assert "mygpt[quantized]" in error.value.fix
