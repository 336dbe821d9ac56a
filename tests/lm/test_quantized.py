"""Four bits: sixteen values for each scale, a fraction of the size, nearly the same answers, and words where the package is missing."""

import importlib.util
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from transformers import AutoModelForCausalLM

from mygpt.core.errors import UsageError
from mygpt.lm.quantized import is_quantized, nf4_settings, require_whole_blocks
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
    require_whole_blocks(module)
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


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "bitsandbytes" else real(name, *more))
    with pytest.raises(UsageError, match="bitsandbytes, which is not installed") as error:
        nf4_settings(torch.float32)
    assert "mygpt[quantized]" in error.value.fix
