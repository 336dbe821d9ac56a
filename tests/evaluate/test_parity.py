"""The three slips, made with the real SmolLM2 tokenizer: a doubled beginning, a stop token that is not one, templates that differ."""

from typing import Any

import pytest

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.model import Model
from mygpt.artifacts.task import Item
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.evaluate.harness import RunTaskConfig, run_task
from mygpt.evaluate.parity import (
    TokenizerFacts,
    check_prompt_ids,
    check_same_prompts,
    check_stop_ids,
    ids_digest,
    prompt_sha256,
)
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.load import load_tokenizer
from tests.evaluate.test_harness import task_of

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


def test_two_runs_that_asked_differently() -> None:
    first = [{"item_id": "a", "prompt_sha256": "1"}, {"item_id": "b", "prompt_sha256": "2"}]
    check_same_prompts({"base": first, "tuned": list(reversed(first))})
    with pytest.raises(Refused, match="1 items were asked in different tokens by `base` and `served`, first `b`"):
        check_same_prompts({"base": first, "served": [first[0], {"item_id": "b", "prompt_sha256": "3"}]})
