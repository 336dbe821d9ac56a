"""The three slips, made with the real SmolLM2 tokenizer: a doubled beginning, a stop token that is not one, templates that differ."""

from collections.abc import Sequence
from typing import Any

import pytest

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.model import Model
from mygpt.artifacts.task import Item
from mygpt.core.digest import digest_text, digest_value
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.evaluate.harness import RunTaskConfig, run_task
from mygpt.evaluate.parity import (
    TokenizerFacts,
    check_prompt_ids,
    check_stop_ids,
    ids_digest,
    prompt_sha256,
)
from mygpt.infer.few_shot import FewShot
from mygpt.infer.protocols import Identity, Score
from mygpt.infer.scoring import Text
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.load import load_tokenizer
from tests.evaluate.test_harness import task_of
from tests.infer.tiny_models import engine_of, tiny_module

ASKED = Conversation((Message("user", "How long is a carnet valid?"),))


@pytest.fixture(scope="module")
def tokenizer(smollm2: Model) -> Any:
    return load_tokenizer(smollm2)


def test_facts(tokenizer: Any) -> None:
    facts = TokenizerFacts.of(tokenizer)
    assert tokenizer.convert_ids_to_tokens([facts.bos_id, facts.turn_end_ids[0]]) == ["<|im_start|>", "<|im_end|>"]
    assert facts.template_digest == ChatRenderer(tokenizer).template_digest


def test_a_doubled_beginning(tokenizer: Any) -> None:
    """SmolLM2's template begins with <|im_start|>, which is also its beginning-of-text token."""
    facts = TokenizerFacts.of(tokenizer)
    ids = ChatRenderer(tokenizer).prompt(ASKED)
    assert ids[0] == facts.bos_id
    check_prompt_ids(ids, facts)
    with pytest.raises(Refused, match=r"begins with the beginning-of-text token \(1\) twice"):
        check_prompt_ids([tokenizer.bos_token_id, *ids], facts)
    with pytest.raises(Refused, match="no tokens"):
        check_prompt_ids([], facts)


class Doubling(ChatRenderer):
    """What a renderer does that lets the tokenizer add its own beginning to a template's."""

    def prompt(self, conversation: Conversation) -> tuple[int, ...]:
        return (self._tokenizer.bos_token_id, *super().prompt(conversation))


def test_the_harness_refuses_it(tokenizer: Any, run: Run) -> None:
    tool = ScriptedCompleter(lambda c: "One year.")
    tool.renderer = Doubling(tokenizer)  # type: ignore[attr-defined]
    items = [Item(name, "How long?", references=("one year",)) for name in "ab"]
    with pytest.raises(Refused, match="twice"):
        run_task(RunTaskConfig(), task=task_of(run, items, form="generate", primary="f1"), completer=tool, run=run)


def test_a_stop_token_that_is_none(tokenizer: Any) -> None:
    facts = TokenizerFacts.of(tokenizer)
    end_of_text = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    check_stop_ids({facts.turn_end_ids[0], end_of_text}, facts)
    with pytest.raises(Refused, match=r"ends an answer with token 2, and generation stops at \[0\] only"):
        check_stop_ids({end_of_text}, facts)


def test_the_harness_refuses_an_engine_that_does_not_stop(tokenizer: Any, run: Run) -> None:
    tool = ScriptedCompleter(lambda c: "One year.")
    tool.renderer = ChatRenderer(tokenizer)  # type: ignore[attr-defined]
    tool.stop_token_ids = {tokenizer.convert_tokens_to_ids("<|endoftext|>")}  # type: ignore[attr-defined]
    items = [Item(name, "How long?", references=("one year",)) for name in "ab"]
    with pytest.raises(Refused, match="made-up next turn"):
        run_task(RunTaskConfig(), task=task_of(run, items, form="generate", primary="f1"), completer=tool, run=run)


def test_a_wrapped_engine_is_checked_too(tokenizer: Any, run: Run) -> None:
    inner = ScriptedCompleter(lambda c: "One year.")
    inner.renderer = Doubling(tokenizer)  # type: ignore[attr-defined]
    shown = Conversation((Message("user", "How wide?"), Message("assistant", "One metre.")))
    items = [Item(name, "How long?", references=("one year",)) for name in "ab"]
    task = task_of(run, items, form="generate", primary="f1")
    with pytest.raises(Refused, match="twice"):
        run_task(RunTaskConfig(), task=task, completer=FewShot(inner, [shown]), run=run)


class Telling:
    """A scorer that shows the ids it scores: a byte is its number plus 10, the beginning is 1."""

    def __init__(self, doubled: bool = False):
        self._doubled = doubled

    @property
    def identity(self) -> Identity:
        return {"engine": "telling"}

    def scored_ids(self, prompt: str, continuation: str) -> Text:
        before = ([1] * (1 + (self._doubled and bool(continuation)))) + [b + 10 for b in prompt.encode()]
        return Text((*before, *(b + 10 for b in continuation.encode())), len(before))

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        return [Score(-1.0 - len(c), len(c), len(c)) for c in continuations]


def test_what_is_scored_is_hashed_by_its_ids(run: Run) -> None:
    """"Q" is 81, "a" 97, "b" 98, a space 32: `printf '[[1,91,42,107],[1,91,42,108]]' | sha256sum`."""
    items = [Item("x", "Q", ("a", "b"), 0), Item("y", "Q", ("b", "a"), 0)]
    made = run_task(RunTaskConfig(), task=task_of(run, items), scorer=Telling(), run=run)
    first, second = made.rows
    assert first["prompt_sha256"] == digest_text("[[1,91,42,107],[1,91,42,108]]") != second["prompt_sha256"]
    assert (first["prompt_tokens"], first["scored_tokens"], made.manifest.facts["hashed"]) == (2, 4, ["ids"])
    text = task_of(run, [Item("x", "ab"), Item("y", "b")], form="rolling", primary="bits_per_byte")
    made = run_task(RunTaskConfig(window_characters=1), task=text, scorer=Telling(), run=run)
    assert [row["prompt_sha256"] for row in made.rows] == [digest_text("[[1,107],[1,108]]"), digest_text("[[1,108]]")]


def test_a_doubled_beginning_of_what_is_scored_is_refused(run: Run) -> None:
    items = [Item("x", "Q", ("a", "b"), 0), Item("y", "Q", ("b", "a"), 0)]
    with pytest.raises(Refused, match=r"What is scored begins with the beginning-of-text token \(1\) twice: 'Q'"):
        run_task(RunTaskConfig(), task=task_of(run, items), scorer=Telling(doubled=True), run=run)


def test_the_engine_tells_what_it_scores(run: Run) -> None:
    """A tiny model with a byte for a token, whose tokenizer puts nothing before a text: an empty prompt has the beginning, 1."""
    engine = engine_of(tiny_module("llama"))
    encode = engine._loaded.tokenizer.encode
    items = [Item("x", "Is it so?", ("yes", "no"), 0), Item("y", "Or so?", ("yes", "no"), 1)]
    rows = run_task(RunTaskConfig(), task=task_of(run, items), scorer=engine, run=run).rows
    assert rows[0]["prompt_sha256"] == digest_value([encode("Is it so? yes"), encode("Is it so? no")])
    assert rows[0]["prompt_tokens"] == len(encode("Is it so?"))
    text = task_of(run, [Item("x", "ab"), Item("y", "b")], form="rolling", primary="bits_per_byte")
    rows = run_task(RunTaskConfig(), task=text, scorer=engine, run=run).rows
    assert rows[0]["prompt_sha256"] == digest_value([[1, *encode("ab")]])


def test_a_tokenizer_without_template(smollm2: Model) -> None:
    bare = load_tokenizer(smollm2)
    bare.chat_template = None
    facts = TokenizerFacts.of(bare)
    assert (facts.turn_end_ids, facts.template_digest) == ((), "")
    check_stop_ids((), facts)


def test_digests() -> None:
    """`printf '[1,2,3]' | sha256sum`"""
    assert ids_digest((1, 2, 3)) == "a615eeaee21de5179de080de8c3052c8da901138406ba71c38c032845f7d54f4"
    assert prompt_sha256("abc", None) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert prompt_sha256("abc", [1, 2, 3]) == ids_digest([1, 2, 3])

