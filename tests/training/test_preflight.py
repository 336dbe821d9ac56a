"""Each refusal, with its value, and the example that is shown."""

from dataclasses import replace
from typing import Any

import pytest

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.lm.chat import ChatRenderer, Rendered
from mygpt.training.preflight import preflight, stretches
from tests.training import tiny


@pytest.fixture(scope="module")
def renderer() -> ChatRenderer:
    return ChatRenderer(tiny.chat_tokenizer())


@pytest.fixture
def events(run: Run) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    run.listeners.append(seen.append)
    return seen


def turns(*texts: str) -> Conversation:
    return Conversation(tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)))


def check(examples: list[Rendered], renderer: ChatRenderer, run: Run, **changes: Any) -> None:
    settings: dict[str, Any] = {"max_example_tokens": 1024, "serving_template": renderer.template_digest}
    preflight(examples, renderer=renderer, run=run, **{**settings, **changes})


@pytest.fixture(scope="module")
def good(renderer: ChatRenderer) -> list[Rendered]:
    asked = [turns("Where is it?", "Under the mat."), turns("Who?", "Clara Voß."), turns("One?", "Yes.", "Two?", "No, 2.")]
    return [renderer.render(c) for c in asked]


def test_good_data_pass_and_one_example_is_shown(good: list[Rendered], renderer: ChatRenderer, run: Run, events: list[dict]) -> None:
    check(good, renderer, run)
    (shown,) = (e for e in events if e["event"] == "trained_example")
    assert shown["parts"] == [
        {"text": "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n", "trained": False},
        {"text": "Clara Voß.<|im_end|>", "trained": True},
        {"text": "\n", "trained": False},
    ]
    assert shown["examples"] == 3
    assert "".join(p["text"] for p in shown["parts"]) == renderer.text(good[1].token_ids)


def test_shown_example_of_several_turns(good: list[Rendered], renderer: ChatRenderer, run: Run, events: list[dict]) -> None:
    check(good[2:], renderer, run)
    (shown,) = (e for e in events if e["event"] == "trained_example")
    assert [p["text"] for p in shown["parts"] if p["trained"]] == ["Yes.<|im_end|>", "No, 2.<|im_end|>"]
    assert "".join(p["text"] for p in shown["parts"]) == renderer.text(good[2].token_ids)


def test_no_space_is_lost_where_a_tokenizer_drops_the_first(run: Run, events: list[dict]) -> None:
    """Llama 2's kind writes a space before each word and drops the one at the front of what it decodes."""
    template = tiny.CHATML.replace("assistant\n", "assistant").replace("{{ m.role }}\n", "{{ m.role }}")
    spaced = ChatRenderer(tiny.chat_tokenizer(template=template, spaces_before_words=True))
    example = spaced.render(turns("Who is it?", " It is Clara."))
    (answer,) = [(start, end) for start, end, trained in stretches(example.trained) if trained]
    whole = spaced.text(example.token_ids)
    assert " " + spaced.text(example.token_ids[answer[0] : answer[1]]) in whole  # decoded alone, its first space is gone
    check([example], spaced, run)
    (shown,) = (e for e in events if e["event"] == "trained_example")
    assert "".join(p["text"] for p in shown["parts"]) == whole


def test_stretches_by_hand() -> None:
    assert stretches([]) == []
    assert stretches([True]) == [(0, 1, True)]
    assert stretches([False, False, True, False]) == [(0, 2, False), (2, 3, True), (3, 4, False)]


# -- refusals ----------------------------------------------------------------------------------------------------------------


def refused(examples: list[Rendered], renderer: ChatRenderer, run: Run, **changes: Any) -> Refused:
    seen: list[str] = []
    run.listeners.append(lambda event: seen.append(event["event"]))
    with pytest.raises(Refused) as error:
        check(examples, renderer, run, **changes)
    assert error.value.exit_code == 3 and error.value.fix
    assert "trained_example" not in seen
    return error.value


def test_empty_set(renderer: ChatRenderer, run: Run) -> None:
    assert "The training set is empty" in refused([], renderer, run).what


def test_no_trained_token(good: list[Rendered], renderer: ChatRenderer, run: Run) -> None:
    silent = replace(good[0], trained=(False,) * len(good[0].token_ids))
    assert "1 of 3 examples have no trained token (first: number 1)" in refused([good[1], silent, good[2]], renderer, run).what
    first_only = replace(good[0], trained=(True,) + (False,) * (len(good[0].token_ids) - 1))  # nothing precedes it
    assert "1 of 1 examples have no trained token (first: number 0)" in refused([first_only], renderer, run).what


def test_stop_token_not_trained(good: list[Rendered], renderer: ChatRenderer, run: Run) -> None:
    last = max(i for i, trained in enumerate(good[0].trained) if trained)
    endless = replace(good[0], trained=tuple(t and i != last for i, t in enumerate(good[0].trained)))
    told = refused([*good, endless, endless], renderer, run).what
    assert "2 of 5 examples do not train the stop token (first: number 3)" in told


def test_stop_token_of_an_earlier_turn_not_trained(good: list[Rendered], renderer: ChatRenderer, run: Run) -> None:
    first_stop = good[2].token_ids.index(renderer.stop_token_ids[0], good[2].trained.index(True))
    endless = replace(good[2], trained=tuple(t and i != first_stop for i, t in enumerate(good[2].trained)))
    assert endless.trained[-2]  # the last turn's stop token is still trained
    assert "1 of 1 examples do not train the stop token" in refused([endless], renderer, run).what


def test_cut_answers(good: list[Rendered], renderer: ChatRenderer, run: Run) -> None:
    longest = max(len(e.token_ids) for e in good)
    check(good, renderer, run, max_example_tokens=longest)
    error = refused(good, renderer, run, max_example_tokens=longest - 1)
    assert f"1 of 3 examples are longer than {longest - 1} tokens (longest: {longest})" in error.what
    assert f"`max_example_tokens` to {longest}" in error.fix


def test_longer_than_the_model_sees(good: list[Rendered], renderer: ChatRenderer, run: Run) -> None:
    longest = max(len(e.token_ids) for e in good)
    check(good, renderer, run, context_tokens=longest)
    for max_example_tokens in (1024, longest - 1):
        error = refused(good, renderer, run, max_example_tokens=max_example_tokens, context_tokens=longest - 1)
        assert f"longer than {longest - 1} tokens (longest: {longest})" in error.what
        assert f"window is {longest - 1} tokens" in error.fix and "max_example_tokens" not in error.fix


def test_another_template(good: list[Rendered], renderer: ChatRenderer, run: Run) -> None:
    other = ChatRenderer(tiny.chat_tokenizer(template=tiny.CHATML.replace("\n", " "))).template_digest
    error = refused(good, renderer, run, serving_template=other)
    assert renderer.template_digest[:12] in error.what and other[:12] in error.what


def test_what_is_special_about_a_template_is_said_once(run: Run, events: list[dict]) -> None:
    """One that writes earlier answers in capitals: only the last answer is trained."""
    template = tiny.CHATML.replace("{{ m.content }}", "{{ m.content if loop.last or m.role == 'user' else m.content | upper }}")
    special = ChatRenderer(tiny.chat_tokenizer(template=template))
    examples = [special.render(turns("one?", "yes.", "two?", "no."))] * 2
    check(examples, special, run)
    said = [e["text"] for e in events if e["event"] == "warning"]
    assert said == ["The chat template writes earlier answers differently from the last one: only the last answer is trained."]
