"""Prefix tuning: its first keys and values are the model's own, of decoders and of encoder-decoders."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import BartConfig, BartForConditionalGeneration, MambaConfig, MambaForCausalLM, T5Config, T5ForConditionalGeneration

from mygpt.core.errors import Refused
from mygpt.lm.adapters.prefix import Prefix, attach
from mygpt.lm.adapters.real_words import ids_of
from mygpt.lm.virtual_tokens import prefix
from tests.infer.tiny_models import tiny_module
from tests.lm import tuned
from tests.lm.tuned import IDS_BT


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_begins_with_the_models_own_keys_and_values(architecture: str) -> None:
    """Against the cache that transformers itself fills with the text."""
    base = tiny_module(architecture)
    ids_1N = torch.tensor([ids_of("Be brief.", tuned.TOKENIZER, num_tokens=6)])
    output = base(input_ids=ids_1N, use_cache=True)
    own = getattr(output, "past_key_values", None) or output.cache
    found = prefix(attach(tiny_module(architecture), Prefix(num_tokens=6, text="Be brief."), tokenizer=tuned.TOKENIZER))
    assert found is not None and len(found) == len(own.layers) == 2
    for (keys, values), layer in zip(found, own.layers, strict=True):
        assert torch.allclose(keys, layer.keys, atol=1e-5) and torch.allclose(values, layer.values, atol=1e-5)


def encoder_decoder(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "t5":
        sizes = {"d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
        return T5ForConditionalGeneration(T5Config(vocab_size=259, d_model=32, **sizes)).eval()
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    sizes = {"vocab_size": 259, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "init_std": 0.3}
    return BartForConditionalGeneration(BartConfig(**sizes, **heads)).eval()


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_an_encoder_decoder_learns_and_loads_in_plain_peft(kind: str, tmp_path: Path) -> None:
    method = Prefix(num_tokens=4)
    module = attach(encoder_decoder(kind), method, tokenizer=tuned.TOKENIZER).eval()
    (name,) = [name for name, p in module.named_parameters() if p.requires_grad]
    optimizer = torch.optim.Adam([dict(module.named_parameters())[name]], lr=0.05)
    losses = []
    for _ in range(8):
        loss = module(input_ids=IDS_BT, labels=IDS_BT.flip(1)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.02
    folder = tuned.saved(module, method, tmp_path / "adapter")
    plain = PeftModel.from_pretrained(encoder_decoder(kind), str(folder)).eval()
    with torch.no_grad():
        ours, theirs = (one(input_ids=IDS_BT, labels=IDS_BT).logits for one in (module, plain))
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_running_state_is_refused() -> None:
    torch.manual_seed(0)
    module = MambaForCausalLM(MambaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, state_size=4))
    with pytest.raises(Refused, match="keeps a running state"):
        attach(module, Prefix(), tokenizer=tuned.TOKENIZER)
