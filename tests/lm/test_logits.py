"""Logits at chosen positions: those of the model's own forward pass, whatever its head does beside the product."""

from typing import Any

import pytest
import torch

from mygpt.lm.logits import logits_at
from tests.infer.tiny_models import tiny_module

IDS = torch.randint(3, 259, (2, 9), generator=torch.Generator().manual_seed(0))
HEADS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {},
    "phi": {},  # its head has a bias
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.25},
    "gemma2": {"final_logit_softcapping": 1.5},
    "gemma3_text": {"final_logit_softcapping": 1.5},
    "nanochat": {"final_logit_softcapping": 1.5},
    "hyperclovax": {"logits_scaling": 4.0, "num_key_value_heads": 2, "head_dim": 8},
    "minicpm3": {"dim_model_base": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "head_dim": 8},
    "recurrent_gemma": {"logits_soft_cap": 1.5, "num_hidden_layers": 3, "num_key_value_heads": 1, "attention_window_size": 8},
    "inkling_text": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 16},
}


@pytest.mark.parametrize("architecture", HEADS)
def test_they_are_the_models_own(architecture: str) -> None:
    module = tiny_module(architecture, **HEADS[architecture])
    with torch.inference_mode():
        expected_BTV = module(input_ids=IDS).logits
        hidden_BTD = module.get_decoder()(input_ids=IDS, use_cache=False).last_hidden_state
        chosen = torch.tensor([[True, False, True] * 3, [False, False, True] * 3])
        found_NV = logits_at(module, hidden_BTD[chosen])
    torch.testing.assert_close(found_NV, expected_BTV[chosen], atol=1e-5, rtol=1e-5)
    assert found_NV.shape == (9, 259)


@pytest.mark.parametrize("architecture", [a for a in HEADS if a not in ("llama", "gpt2", "phi")])
def test_the_step_beside_the_product_is_a_real_one(architecture: str) -> None:
    """Without it the logits would differ: the tests above can fail."""
    module = tiny_module(architecture, **HEADS[architecture])
    with torch.inference_mode():
        hidden_BTD = module.get_decoder()(input_ids=IDS, use_cache=False).last_hidden_state
        plain = module.get_output_embeddings()(hidden_BTD)
        assert not torch.allclose(logits_at(module, hidden_BTD), plain, atol=0.1)


def test_they_are_float32_and_may_be_none() -> None:
    module = tiny_module("llama").to(torch.bfloat16)
    found = logits_at(module, torch.zeros(0, 32, dtype=torch.bfloat16))
    assert (found.shape, found.dtype) == ((0, 259), torch.float32)


def test_gradients_reach_the_hidden_states() -> None:
    module = tiny_module("gemma2")
    hidden = torch.randn(3, 32, requires_grad=True)
    logits_at(module, hidden).logsumexp(-1).sum().backward()
    assert hidden.grad is not None and hidden.grad.abs().sum() > 0


def test_an_adapter_around_the_model_changes_nothing_here() -> None:
    import peft

    module = tiny_module("granite")
    wrapped = peft.get_peft_model(module, peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    hidden = torch.randn(3, 32)
    assert torch.equal(logits_at(wrapped, hidden), logits_at(module, hidden))
