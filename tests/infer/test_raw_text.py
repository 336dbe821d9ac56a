"""Raw text through the engine: continued as transformers continues it, and scores that say what greedy decoding would have written."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.errors import Refused
from mygpt.infer.cached_completer import CachedCompleter
from mygpt.infer.protocols import Sampling
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.load import Loaded
from mygpt.lm.plain_text import text_ids
from tests.infer.tiny_models import ask, byte_tokenizer, engine_of, own_greedy, tiny_module

TEXTS = ["The ferry leaves at", "The ferry leaves at nine. The ferry leaves at", "x", "<|im_start|>user"]


def raw(text: str) -> Conversation:
    return Conversation((Message("text", text),))


def without_template(module: Any) -> TorchEngine:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    model: Any = None
    return TorchEngine(model, loaded=Loaded(module, tokenizer, model))


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text"])
def test_continued_as_transformers_continues_it(architecture: str) -> None:
    module, tokenizer = tiny_module(architecture), byte_tokenizer()
    answers = engine_of(module).complete([raw(text) for text in TEXTS], Sampling(max_tokens=12))
    for text, answer in zip(TEXTS, answers, strict=True):
        ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert len(ids) == len(text) == answer.prompt_tokens  # a byte each: no template, no special token
        assert list(answer.token_ids) == own_greedy(module, ids, max_tokens=12, stops=(2,))


def test_a_base_model_continues_and_does_not_chat() -> None:
    module = tiny_module("llama")
    (answer,) = without_template(module).complete([raw(TEXTS[0])], Sampling(max_tokens=12))
    assert answer.token_ids == engine_of(module).complete([raw(TEXTS[0])], Sampling(max_tokens=12))[0].token_ids
    with pytest.raises(Refused, match="no chat template"):
        without_template(module).complete([ask("Hi")], Sampling(max_tokens=2))


def test_white_space_stays_and_is_kept_apart_from_a_chat(tmp_path: Path) -> None:
    """A model whose every step is a space."""
    module = tiny_module("llama")
    head = torch.nn.Linear(32, 259)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.eye(259)[byte_tokenizer().encode(" ")[0]])
    module.set_output_embeddings(head)
    engine = engine_of(module)
    for asked, said in ((raw("a"), "   "), (ask("a"), "")):
        assert engine.complete([asked], Sampling(max_tokens=3))[0].text == said
    assert list(engine.stream(raw("a"), Sampling(max_tokens=2)))[-1].text == "  "  # type: ignore[union-attr]


def test_the_cache_keeps_raw_text_and_a_question_apart(tmp_path: Path) -> None:
    cached = CachedCompleter(ScriptedCompleter(lambda c: c.messages[0].role), tmp_path / "answers.sqlite")
    for _ in range(2):
        assert [a.text for a in cached.complete([raw("a"), ask("a")], Sampling())] == ["text", "user"]


def test_where_text_begins() -> None:
    tokenizer = byte_tokenizer()
    assert text_ids(tokenizer, "") == (1,)
    assert text_ids(tokenizer, "ab") == tuple(tokenizer.encode("ab"))

    class Always:
        """A tokenizer that puts its beginning before every text, as Llama's does."""

        bos_token_id, eos_token_id = 1, 2

        def encode(self, text: str, **settings: Any) -> list[int]:
            return ([] if "add_special_tokens" in settings else [1]) + [ord(c) for c in text]

    assert text_ids(Always(), "ab") == (1, 97, 98)


@pytest.mark.parametrize("architecture", ["llama", "bloom"])  # scored as trees, and as plain batches
def test_whether_a_continuation_is_the_greedy_one(architecture: str) -> None:
    """Every letter after a dozen beginnings, against a plain forward pass; then two of them."""
    module, tokenizer = tiny_module(architecture), byte_tokenizer()
    engine = engine_of(module)

    def likeliest(text: str) -> int:
        with torch.no_grad():
            return int(module(input_ids=torch.tensor([tokenizer.encode(text)])).logits[0, -1].argmax())

    starts = [f"{word} at the pier" * times for word in ("a bell", "no ship", "cold", "x", "three", "Why") for times in (1, 3)]
    letters = [chr(code) for code in range(32, 127)]
    asked = [(start, letter) for start in starts for letter in letters]
    found = engine.score([start for start, _ in asked], [letter for _, letter in asked])
    expected = [tokenizer.encode(letter) == [likeliest(start)] for start, letter in asked]
    assert [score.is_greedy for score in found] == expected
    assert any(expected)
    start, letter = asked[expected.index(True)]
    after = likeliest(start + letter)
    two = engine.score([start] * len(letters), [letter + other for other in letters])
    assert [score.is_greedy for score in two] == [tokenizer.encode(other) == [after] for other in letters]
