"""The real `openai` client against a real server. Expected values: worked by hand from the completer's text."""

import threading

import openai
import pytest

from mygpt.artifacts.task import Item
from mygpt.core.digest import digest_value
from mygpt.evaluate.harness import RunTaskConfig, run_task
from mygpt.infer.protocols import Answer
from mygpt.infer.remote import RemoteCompleter
from mygpt.infer.scripted import ScriptedCompleter
from tests.evaluate.test_harness import task_of
from tests.infer.tiny_models import engine_of, tiny_module
from tests.serve.live_site import Paced, app_of, cited_answer, running

ANSWER = "Days lapse in March. I am sure."
FIRST = "Days lapse in March."


def client(site, **settings) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{site.address}/v1", max_retries=0, timeout=10, **{"api_key": "unused", **settings})


def ask(site, question="When do days lapse?", **settings):
    return client(site).chat.completions.create(model="handbook", messages=[{"role": "user", "content": question}], **settings)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    completer = Paced(lambda c: cited_answer(ANSWER, FIRST, unsupported=((21, 31),), prompt_tokens=9))
    home = tmp_path_factory.mktemp("home")
    with running(app_of(completer, home=home), home) as site:
        yield site, completer


@pytest.fixture
def cited(shared):
    """One server for all, and a completer that has seen nothing yet."""
    for seen in (shared[1].events, shared[1].samplings, shared[1].conversations):
        seen.clear()
    return shared


def test_answer_with_citations(cited):
    site, _ = cited
    completion = ask(site)
    assert completion.object == "chat.completion" and completion.id.startswith("chatcmpl-") and completion.model == "handbook"
    [choice] = completion.choices
    assert (choice.index, choice.finish_reason, choice.message.role, choice.message.content) == (0, "stop", "assistant", ANSWER)
    assert completion.usage.model_dump(include={"prompt_tokens", "completion_tokens", "total_tokens"}) == {
        "prompt_tokens": 9,
        "completion_tokens": 7,
        "total_tokens": 16,
    }
    assert choice.message.mygpt == {
        "citations": [
            {
                "start": 0,
                "end": 20,
                "document_id": "doc1",
                "source_start": 40,
                "source_end": 73,
                "path": "hr/holidays.md",
                "place": "page 3",
                "title": "Holiday policy",
                "quote": "Days not taken lapse on 31 March.",
                "score": 0.83,
            }
        ],
        "unsupported": [[21, 31]],
        "abstained": False,
    }


def test_stream_is_the_same_answer_in_pieces(cited):
    site, _ = cited
    chunks = list(ask(site, stream=True))
    assert len({(c.id, c.created, c.model, c.object) for c in chunks}) == 1 and chunks[0].object == "chat.completion.chunk"
    deltas = [c.choices[0].delta for c in chunks]
    assert [d.role for d in deltas] == ["assistant"] + [None] * (len(chunks) - 1)
    assert [d.content for d in deltas if d.content] == ["Days", " lap", "se i", "n Ma", "rch.", " I a", "m su", "re."]
    assert [c.choices[0].finish_reason for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert chunks[-1].mygpt["citations"][0]["title"] == "Holiday policy" and "text" not in chunks[-1].mygpt
    assert all(not hasattr(c, "mygpt") for c in chunks[:-1])


def test_stream_usage_where_asked_for(cited):
    site, _ = cited
    chunks = list(ask(site, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == 16
    assert all(c.usage is None for c in chunks[:-1])


def test_the_wire_is_events_that_end_with_done(cited):
    site, _ = cited
    body = {"model": "handbook", "messages": [{"role": "user", "content": "?"}], "stream": True}
    status, headers, content = site.request("POST", "/v1/chat/completions", body=body)
    events = content.decode().split("\n\n")
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    assert all(event.startswith("data: {") for event in events[:-2]) and events[-2:] == ["data: [DONE]", ""]


def test_abstained_is_stop_and_length_is_length(site_of):
    reasons = {"a": "abstained", "l": "length", "s": "stop"}
    site = site_of(Paced(lambda c: Answer("Text.", finish_reason=reasons[c.question])))
    found = {q: ask(site, q).choices[0] for q in reasons}
    assert {q: c.finish_reason for q, c in found.items()} == {"a": "stop", "l": "length", "s": "stop"}
    assert {q: c.message.mygpt["abstained"] for q, c in found.items()} == {"a": True, "l": False, "s": False}


def test_text_that_was_not_streamed_is_not_lost(site_of):
    """An engine may add to or replace what it streamed (for example when it abstains late)."""

    class Corrects(ScriptedCompleter):
        def stream(self, conversation, sampling):
            yield "Draft"
            yield Answer("Draft, ended." if conversation.question == "adds" else "Other.")

    site = site_of(Corrects(lambda c: ""))
    added = list(ask(site, "adds", stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in added) == "Draft, ended." and "text" not in added[-1].mygpt
    replaced = list(ask(site, "replaces", stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in replaced) == "Draft" and replaced[-1].mygpt["text"] == "Other."


def test_parameters_reach_the_engine(cited):
    site, completer = cited
    ask(site, max_tokens=11, temperature=0.7, top_p=0.9, seed=5, stop=["\n\n", "END"], extra_body={"top_k": 40})
    ask(site, max_completion_tokens=12, stop="END")
    ask(site)
    first, second, third = completer.samplings
    assert (first.max_tokens, first.temperature, first.top_p, first.seed, first.stop, first.top_k) == (11, 0.7, 0.9, 5, ("\n\n", "END"), 40)
    assert (second.max_tokens, second.stop) == (12, ("END",))
    assert (third.max_tokens, third.temperature, third.stop) == (96, 0.0, ())  # window 100, the question is 4 words


def test_messages_reach_the_engine_in_order(cited):
    site, completer = cited
    first = ask(site).choices[0].message
    history = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "When"}, {"type": "text", "text": "?"}]},
        first,  # as clients do: the answer object itself, with our extension in it
        {"role": "user", "content": "And then?"},
    ]
    client(site).chat.completions.create(model="handbook", messages=history)
    told = [(m.role, m.content) for m in completer.conversations[1].messages]
    assert told == [("system", "Be brief."), ("user", "When\n?"), ("assistant", ANSWER), ("user", "And then?")]


@pytest.mark.parametrize(
    ("settings", "param", "code"),
    [
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools", "unsupported_parameter"),
        ({"logit_bias": {"5": 3}}, "logit_bias", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"presence_penalty": 0.5}, "presence_penalty", "unsupported_parameter"),
        ({"store": True}, "store", "unsupported_parameter"),
        ({"extra_body": {"temprature": 0.5}}, "temprature", "unknown_parameter"),
        ({"temperature": 3}, "temperature", "invalid_parameter"),
        ({"temperature": "hot"}, "temperature", "invalid_parameter"),
        ({"max_tokens": 0}, "max_tokens", "invalid_parameter"),
        ({"max_tokens": True}, "max_tokens", "invalid_parameter"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", None),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", None),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
    ],
)
def test_what_has_no_effect_is_refused_by_name(cited, settings, param, code):
    site, completer = cited
    with pytest.raises(openai.BadRequestError) as refused:
        ask(site, **settings)
    assert refused.value.body["param"] == param and refused.value.body["code"] == code
    assert refused.value.body["type"] == "invalid_request_error" and f"`{param}`" in refused.value.body["message"]
    assert completer.events == []


def test_near_name_of_a_mistyped_parameter(cited):
    with pytest.raises(openai.BadRequestError, match="Did you mean `temperature`"):
        ask(cited[0], extra_body={"temprature": 0.5})


def test_harmless_and_neutral_parameters_are_accepted(cited):
    accepted = ask(
        cited[0], n=1, user="me", store=False, metadata={"a": "b"}, presence_penalty=0.0, response_format={"type": "text"}, logprobs=False
    )
    assert accepted.choices[0].message.content == ANSWER


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "assistant", "content": "I speak last."}], "messages"),
        ([{"role": "user", "content": "  "}], "messages"),
        ([{"role": "tool", "content": "x", "tool_call_id": "1"}], "messages[0].role"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": 5}], "messages[1].content"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://example.org/a.png"}}]}], "messages[0].content"),
        ([{"role": "user", "content": "a", "name": "Bob"}], "messages[0].name"),
    ],
)
def test_wrong_messages_are_refused(cited, messages, param):
    with pytest.raises(openai.BadRequestError) as refused:
        client(cited[0]).chat.completions.create(model="handbook", messages=messages)
    assert refused.value.body["param"] == param


def test_unknown_model_names_the_known(site_of):
    site = site_of(ScriptedCompleter(lambda c: "x"), ScriptedCompleter(lambda c: "y"))
    with pytest.raises(openai.NotFoundError, match="`handbook`, `second`") as refused:
        client(site).chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "?"}])
    assert refused.value.body["code"] == "model_not_found" and refused.value.body["param"] == "model"
    with pytest.raises(openai.NotFoundError):
        client(site).models.retrieve("gpt-4")


def test_models(site_of):
    site = site_of(ScriptedCompleter(lambda c: "x"), ScriptedCompleter(lambda c: "y"), context_tokens=77)
    models = list(client(site).models.list())
    assert [(m.id, m.object, m.owned_by, m.context_tokens) for m in models] == [
        ("handbook", "model", "mygpt", 77),
        ("second", "model", "mygpt", 77),
    ]
    assert client(site).models.retrieve("second").id == "second"
    assert [m.digest for m in models] == [digest_value({"engine": "scripted", "name": "scripted"})] * 2


def test_served_is_asked_in_the_tokens_of_the_model_at_hand(site_of, run):
    """The same task through the engine and through the server: equal hashes of ids, equal template, and the model's digest is told."""
    engine = engine_of(tiny_module("llama"))
    site = site_of(engine, context_tokens=400, template_digest=engine.renderer.template_digest)
    items = [Item(name, f"Say {name}.", references=(name,)) for name in ("yes", "no")]
    task = task_of(run, items, form="generate", primary="f1", max_tokens=4)
    here, there = (run_task(RunTaskConfig(), task=task, completer=c, run=run) for c in (engine, RemoteCompleter(f"{site.address}/v1")))
    columns = ("item_id", "prompt_sha256", "prompt_tokens", "answer")
    assert [[r[c] for c in columns] for r in there.rows] == [[r[c] for c in columns] for r in here.rows]
    assert there.manifest.facts["hashed"] == here.manifest.facts["hashed"] == ["ids"]
    assert there.manifest.facts["template"] == here.manifest.facts["template"] == engine.renderer.template_digest
    assert there.manifest.facts["model"]["digest"] == digest_value(engine.identity)


@pytest.mark.parametrize("stream", [False, True])
def test_too_long_is_refused_with_the_figures_and_never_cut(cited, stream):
    site, completer = cited
    with pytest.raises(openai.BadRequestError) as refused:
        ask(site, "word " * 100, stream=stream)
    assert refused.value.body["code"] == "context_length_exceeded"
    assert "context length is 100 tokens; the messages take 100" in refused.value.body["message"]
    ask(site, "word " * 99)
    assert completer.samplings[0].max_tokens == 1
    with pytest.raises(openai.BadRequestError, match="take 90 and 11 tokens were asked"):
        ask(site, "word " * 90, max_tokens=11)


@pytest.mark.parametrize(
    "body", [b"{", b"[1]", b'"text"', b"", b'{"a": NaN}', b"\xff\xfe", b'{"a": "\\ud800"}', b"[" * 100_000, b"1" * 5000, b"null"]
)
def test_invalid_json_is_a_clear_400_and_the_server_lives(cited, body):
    site, _ = cited
    status, answer = site.json("POST", "/v1/chat/completions", body=body)
    assert (status, answer["error"]["code"]) == (400, "invalid_json")
    assert site.json("GET", "/health")[1]["status"] == "ok"


def test_too_large_a_body_is_413(cited):
    site, _ = cited
    status, answer = site.json("POST", "/v1/chat/completions", body=b" " * 1_000_001)
    assert (status, answer["error"]["code"]) == (413, "request_too_large")
    assert site.json("POST", "/v1/chat/completions", body=b" " * 1_000_000)[0] == 400  # at the limit it is read (and is no JSON)


def test_only_json_is_read(cited):
    status, answer = cited[0].json("POST", "/v1/chat/completions", body={}, headers={"Content-Type": "text/plain"})
    assert (status, answer["error"]["code"]) == (415, "unsupported_media_type")


def test_failures_of_the_engine(site_of):
    def fail(conversation, index):
        if index == 2:
            raise RuntimeError("secret detail /home/me")

    site = site_of(Paced(lambda c: Answer("x" * 40), before_each=fail))
    with pytest.raises(openai.InternalServerError) as failed:
        ask(site)
    assert "RuntimeError" in str(failed.value) and "secret" not in str(failed.value)
    received = []
    with pytest.raises(openai.APIError, match="RuntimeError"):
        for chunk in ask(site, stream=True):
            received.append(chunk.choices[0].delta.content)
    assert received == ["", "xxxx", "xxxx"]
    assert site.json("GET", "/health")[0] == 200


def test_a_stream_without_an_answer_is_a_failure(site_of):
    class Silent(ScriptedCompleter):
        def stream(self, conversation, sampling):
            yield "half"

    with pytest.raises(openai.InternalServerError):
        ask(site_of(Silent(lambda c: "")))


def test_key(site_of):
    site = site_of(ScriptedCompleter(lambda c: "Yes."), api_key="s3cret-s3cret-s3cret")
    for wrong in ("unused", "s3cret-s3cret-s3cre", "S3CRET-s3cret-s3cret"):
        with pytest.raises(openai.AuthenticationError) as refused:
            client(site, api_key=wrong).models.list()
        assert refused.value.body["code"] == "invalid_api_key"
    authorised = {"Authorization": "Bearer s3cret-s3cret-s3cret"}
    assert site.json("GET", "/v1/models", headers=authorised)[0] == 200
    assert site.json("GET", "/v1/models", headers={"Authorization": "Basic s3cret-s3cret-s3cret"})[0] == 401
    for path, status in {
        "/health": 200,
        "/": 200,
        "/static/chat.js": 200,
        "/api/page": 401,
        "/api/source": 401,
        "/v1/feedback": 401,
        "/nothing": 401,
    }.items():
        assert site.request("GET", path)[0] == status, path


def test_key_accepted_by_the_client(site_of):
    site = site_of(ScriptedCompleter(lambda c: "Yes."), api_key="s3cret-s3cret-s3cret")
    answer = client(site, api_key="s3cret-s3cret-s3cret").chat.completions.create(
        model="handbook", messages=[{"role": "user", "content": "?"}]
    )
    assert answer.choices[0].message.content == "Yes."


def test_nothing_is_left_running_after_all_this(cited):
    site, _ = cited
    ask(site)
    ask(site)
    assert sum(t.name.startswith("generation") for t in threading.enumerate()) <= 3  # one thread per engine, not per request
