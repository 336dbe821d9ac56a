"""Full fine-tuning: all of a model moves, and what is saved is a plain one."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mygpt.lm.adapters import methods
from mygpt.lm.adapters.full import Full, attach, save
from tests.infer.tiny_models import CHATML, tiny_module
from tests.lm import tuned


def test_every_weight_moves_and_is_saved(tmp_path: Path) -> None:
    module = attach(tiny_module("llama").requires_grad_(False))
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    tuned.steps(module, Full(), 2, learning_rate=1e-3)
    assert not [name for name, p in module.named_parameters() if torch.equal(p, before[name])]
    save(module, tuned.TOKENIZER, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert torch.equal(tuned.logits(plain), tuned.logits(module))
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == CHATML
    assert methods.makes_a_model(Full()) and methods.rate_factors(module, Full()) == {}
