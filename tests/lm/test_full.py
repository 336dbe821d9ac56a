"""Full fine-tuning: all of a model moves, and what is saved is a plain one, with what ends its answers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from mygpt.lm.adapters import methods
from mygpt.lm.adapters.full import Full, attach, save
from mygpt.lm.chat import ChatRenderer
from tests.finetune import shapes
from tests.infer.tiny_models import CHATML, byte_tokenizer, tiny_module
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


@pytest.mark.parametrize(
    ("base", "template", "saved"),
    [(0, CHATML, [2, 0]), ([0, 5], CHATML, [2, 0, 5]), (None, CHATML, [2, 0]), (2, CHATML, [0, 2]), ([0, 2], CHATML, [0, 2]), (0, None, 0)],
)
def test_the_turns_end_is_named_beside_the_bases_own(base: Any, template: str | None, saved: Any, tmp_path: Path) -> None:
    """The tokenizer ends texts with number 0, the template ends turns with number 2. What is named already stays as it stands."""
    tokenizer, module = byte_tokenizer(), tiny_module("llama", eos_token_id=0)
    tokenizer.eos_token, tokenizer.chat_template = "<|endoftext|>", template
    module.generation_config = GenerationConfig(eos_token_id=base, pad_token_id=0)
    save(module, tokenizer, tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == saved
    assert AutoModelForCausalLM.from_pretrained(tmp_path).generation_config.eos_token_id == saved
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == 0
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.eos_token_id == 0
    if template:
        assert ChatRenderer(again).template_digest == ChatRenderer(tokenizer).template_digest


def test_an_encoder_decoder_names_the_end_of_its_answers(tmp_path: Path) -> None:
    """Answers end as the tokenizer ends a text, with number 2; the base names number 3."""
    module = shapes.tiny_module("t5", "seq2seq_lm")
    module.generation_config.eos_token_id = 3
    save(module, shapes.byte_tokenizer("t5"), tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == [2, 3]


def test_what_writes_nothing_has_no_such_file(tmp_path: Path) -> None:
    save(shapes.tiny_module("bert", "masked_lm"), shapes.byte_tokenizer("bert"), tmp_path)
    assert not (tmp_path / "generation_config.json").exists()
