"""The remote completer against a real HTTP server on this machine."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.errors import MygptError, Unreachable, UsageError
from mygpt.core.run import Run
from mygpt.infer import remote
from mygpt.infer.cached_completer import CachedCompleter
from mygpt.infer.protocols import Answer, Sampling
from mygpt.infer.remote import RemoteCompleter, told_of

KEY = "sk-not-a-real-key-0123456789"
Reply = tuple[int, Any, dict[str, str]]  # status, body (bytes, or JSON), headers


@dataclass
class Site:
    """What the server answers, and what it was sent."""

    address: str = ""
    reply: Callable[[str, dict[str, Any]], Reply] = lambda path, body: (404, {}, {})
    seen: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def bodies(self) -> list[dict[str, Any]]:
        return [body for path, body, _ in self.seen if path == "/v1/chat/completions"]


def said(text: str | None, reason: str = "stop") -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 3}}, {}


def models(*names: str) -> Reply:
    return 200, {"object": "list", "data": [{"id": name} for name in names]}, {}


@pytest.fixture
def site() -> Iterator[Site]:
    one = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            with one.lock:
                one.seen.append((self.path, body, dict(self.headers)))
            status, content, headers = one.reply(self.path, body)
            sent = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(sent)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):  # of a client that did not wait
                self.wfile.write(sent)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    one.address = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield one
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it would have waited."""
    slept: list[float] = []
    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=slept.append))
    monkeypatch.delenv("MYGPT_API_KEY", raising=False)
    monkeypatch.delenv("MYGPT_OFFLINE", raising=False)
    return slept


def ask(text: str) -> Conversation:
    return Conversation((Message("system", "Be brief."), Message("user", text)))


def test_answers_come_in_order(site: Site, run: Run) -> None:
    def reply(path: str, body: dict[str, Any]) -> Reply:
        question = body["messages"][-1]["content"]
        return said(f"  Answer to {question}\n", "length" if question == "9" else "stop")

    site.reply = reply
    sampling = Sampling(max_tokens=5, temperature=0.5, top_p=0.9, seed=4, stop=("END",))
    answers = RemoteCompleter(f"{site.address}/#one", run=run).complete([ask(str(i)) for i in range(10)], sampling)
    assert answers == [Answer(f"Answer to {i}", "length" if i == 9 else "stop", prompt_tokens=11) for i in range(10)]
    assert sorted(site.bodies(), key=lambda b: b["messages"][1]["content"])[3] == {
        "model": "one",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3"}],
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 4,
        "stop": ["END"],
    }
    assert all("Authorization" not in headers for _, _, headers in site.seen)


def test_top_k_is_sent_where_it_is_set(site: Site) -> None:
    site.reply = lambda path, body: said(None)
    assert RemoteCompleter(f"{site.address}#one").complete([ask("a")], Sampling(top_k=3)) == [Answer("", prompt_tokens=11)]
    assert site.bodies()[0]["top_k"] == 3


def test_nothing_of_a_sampling_is_dropped_on_the_way(site: Site) -> None:
    site.reply = lambda path, body: said(None)
    unusual = {"min_tokens": 2, "min_p": 0.1, "repetition_penalty": 1.2, "frequency_penalty": 0.5, "presence_penalty": -0.25}
    completer = RemoteCompleter(f"{site.address}#one")
    completer.complete([ask("a")], Sampling(**unusual))  # type: ignore[arg-type]
    completer.complete([ask("a")], Sampling())
    first, second = site.bodies()
    assert {name: first[name] for name in unusual} == unusual
    assert not set(second) & {*unusual, "top_k"}
    with pytest.raises(UsageError, match="No server takes `keep_crossing`"):
        completer.complete([ask("a")], Sampling(keep_crossing=False))


def test_the_same_question_twice_is_drawn_twice(site: Site) -> None:
    site.reply = lambda path, body: said(str(body["seed"]))
    completer = RemoteCompleter(f"{site.address}#one")
    first, second, other = completer.complete([ask("a"), ask("a"), ask("b")], Sampling(temperature=1, seed=4))
    assert (first.text, other.text) == ("4", "4") and second.text != "4"
    assert completer.complete([ask("a"), ask("a")], Sampling(temperature=1, seed=4))[1] == second


def test_without_a_name_the_first_model_is_taken(site: Site) -> None:
    site.reply = lambda path, body: models("first", "second") if path == "/v1/models" else said("ok")
    completer = RemoteCompleter(site.address)
    assert completer.identity == {"engine": "remote", "address": site.address, "name": "first"}
    completer.complete([ask("a")], Sampling())
    assert site.bodies()[0]["model"] == "first"


def test_a_server_without_models_is_said_so(site: Site) -> None:
    site.reply = lambda path, body: models()
    with pytest.raises(MygptError, match="lists no model"):
        RemoteCompleter(site.address)


def test_a_busy_server_is_asked_again(site: Site, waits: list[float]) -> None:
    replies = [(429, {}, {"Retry-After": "9"}), (503, {}, {}), said("at last")]
    site.reply = lambda path, body: replies.pop(0)
    assert RemoteCompleter(f"{site.address}#one").complete([ask("a")], Sampling())[0].text == "at last"
    assert waits == [9.0, 2.0]
    assert len(site.seen) == 3


@pytest.mark.parametrize("asked", ["-5", "nan", "Wed, 21 Oct 2026 07:28:00 GMT", "1e9"])
def test_an_odd_wait_is_bounded(site: Site, waits: list[float], asked: str) -> None:
    replies = [(429, {}, {"Retry-After": asked}), said("ok")]
    site.reply = lambda path, body: replies.pop(0)
    RemoteCompleter(f"{site.address}#one").complete([ask("a")], Sampling())
    assert waits == [30.0 if asked == "1e9" else 1.0]


def test_a_server_that_stays_broken_is_unreachable(site: Site, waits: list[float]) -> None:
    site.reply = lambda path, body: (500, {}, {})
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:\d+ did not answer after 4 attempts \(status 500\)"):
        RemoteCompleter(f"{site.address}#one").complete([ask("a")], Sampling())
    assert len(site.seen) == 4 and waits == [1.0, 2.0, 4.0]


def test_no_server_is_unreachable(waits: list[float]) -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1 did not answer after 4 attempts \(ConnectError"):
        RemoteCompleter("http://127.0.0.1:1/v1")


def test_a_slow_server_is_asked_again_then_named_and_resumed(site: Site, waits: list[float], tmp_path: Path) -> None:
    """Question 7 of 10 takes longer than is waited for: four attempts, an error, and later only what is missing is asked."""
    slow = threading.Event()
    slow.set()

    def reply(path: str, body: dict[str, Any]) -> Reply:
        if path == "/v1/models":
            return models("one")
        question = body["messages"][-1]["content"]
        if question == "7" and slow.is_set():
            time.sleep(0.4)
        return said(f"Answer to {question}")

    site.reply = reply
    cached = CachedCompleter(RemoteCompleter(f"{site.address}#one", parallel=1, timeout_seconds=0.2), tmp_path / "answers.sqlite")
    asked = [ask(str(i)) for i in range(10)]
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:\d+ did not answer after 4 attempts \(ReadTimeout") as caught:
        cached.complete(asked, Sampling())
    assert caught.value.fix == "Check that the server runs and the address is right."
    assert waits == [1.0, 2.0, 4.0]
    assert [b["messages"][1]["content"] for b in site.bodies()] == [*"0123456", *"7777"]
    slow.clear()
    site.seen.clear()
    assert [a.text for a in cached.complete(asked, Sampling())] == [f"Answer to {i}" for i in range(10)]
    assert [b["messages"][1]["content"] for b in site.bodies()] == [*"789"]


@pytest.mark.parametrize("parallel", [1, 4])
def test_of_a_hundred_answers_one_fault_costs_one(site: Site, tmp_path: Path, parallel: int) -> None:
    """The hundredth request fails: 99 answers are kept, whatever was under way beside it too."""
    broken = True

    def reply(path: str, body: dict[str, Any]) -> Reply:
        if path == "/v1/models":
            return models("one")
        question = body["messages"][-1]["content"]
        return (400, {"error": "no"}, {}) if broken and question == "99" else said(question)

    site.reply = reply
    cached = CachedCompleter(RemoteCompleter(f"{site.address}#one", parallel=parallel), tmp_path / "answers.sqlite")
    asked = [ask(str(i)) for i in range(100)]
    with pytest.raises(MygptError, match="answered 400"):
        cached.complete(asked, Sampling())
    broken = False
    site.seen.clear()
    assert [a.text for a in cached.complete(asked, Sampling())] == [str(i) for i in range(100)]
    assert [b["messages"][1]["content"] for b in site.bodies()] == ["99"]


def test_who_stops_listening_stops_the_asking(site: Site) -> None:
    site.reply = lambda path, body: said("ok")
    coming = RemoteCompleter(f"{site.address}#one", parallel=1).as_finished([ask(str(i)) for i in range(50)], Sampling())
    assert next(coming) == (0, Answer("ok", prompt_tokens=11))
    coming.close()  # type: ignore[attr-defined]
    assert len(site.bodies()) < 50


def test_a_model_served_anew_is_another(site: Site, tmp_path: Path) -> None:
    """The same address and name: answers that were kept are the old model's, and are not given for the new one's."""
    entry = {"id": "one", "digest": "a" * 64, "template_digest": "t1", "created": 1_700_000_000}
    site.reply = lambda path, body: (200, {"data": [{"id": "other"}, entry]}, {}) if path == "/v1/models" else said(entry["digest"][0])  # type: ignore[index]

    def answered() -> tuple[str, Any]:
        remote = RemoteCompleter(f"{site.address}#one")
        (answer,) = CachedCompleter(remote, tmp_path / "answers.sqlite").complete([ask("?")], Sampling())
        return answer.text, remote

    text, completer = answered()
    assert text == "a" and completer.template_digest == "t1"
    assert completer.identity == {"engine": "remote", "address": site.address, "name": "one", "digest": "a" * 64}
    entry["digest"] = "b" * 64
    assert answered()[0] == "b"
    site.seen.clear()
    assert answered()[0] == "b" and not site.bodies()  # and kept


def test_what_a_server_tells_of_its_model() -> None:
    now = int(time.time())
    assert told_of({"id": "m", "digest": "d", "created": 5, "root": "r"}) == {"digest": "d"}  # mygpt: `created` is the server's start
    assert told_of({"id": "m", "created": now, "root": "/models/v2"}) == {"root": "/models/v2"}  # vLLM: the time of asking
    assert told_of({"id": "m", "created": 1_686_935_002}) == {"created": 1_686_935_002}  # OpenAI: the day of the model
    assert told_of({"id": "m", "created": "yesterday"}) == told_of({"id": "m", "created": 0}) == told_of({}) == {}


def test_a_server_without_a_list_tells_nothing(site: Site) -> None:
    site.reply = lambda path, body: (404, {}, {}) if path == "/v1/models" else said("ok")
    assert RemoteCompleter(f"{site.address}#one").identity == {"engine": "remote", "address": site.address, "name": "one"}


def test_the_hash_of_the_ids_comes_along(site: Site) -> None:
    choice = {"message": {"content": "ok", "mygpt": {"citations": [], "prompt_sha256": "f" * 64}}, "finish_reason": "stop"}
    site.reply = lambda path, body: (200, {"choices": [choice]}, {})
    assert RemoteCompleter(f"{site.address}#one").complete([ask("a")], Sampling()) == [Answer("ok", prompt_sha256="f" * 64)]


def test_one_refusal_ends_the_whole_call(site: Site) -> None:
    site.reply = lambda path, body: (401, {"error": "no"}, {})
    with pytest.raises(MygptError, match="answered 401"):
        RemoteCompleter(f"{site.address}#one", parallel=1).complete([ask(str(i)) for i in range(50)], Sampling())
    assert len(site.seen) < 10


@pytest.mark.parametrize(
    "content",
    [b"<html>hi</html>", b"", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{}]}', b'{"choices": [{"message": "text"}]}', b"\xff\xfe"],
)
def test_what_is_no_completion_is_an_error_with_a_next_step(site: Site, content: bytes) -> None:
    site.reply = lambda path, body: (200, content, {})
    with pytest.raises(MygptError, match=r"did not answer as an OpenAI-compatible server does\..*/v1"):
        RemoteCompleter(f"{site.address}#one").complete([ask("a")], Sampling())


@pytest.mark.parametrize("content", [b"[]", b'{"data": [{}]}', b'{"data": {"id": 1}}', b'{"data": 5}'])
def test_what_is_no_list_of_models_is_an_error(site: Site, content: bytes) -> None:
    site.reply = lambda path, body: (200, content, {})
    with pytest.raises(MygptError, match="did not answer as an OpenAI-compatible server does"):
        RemoteCompleter(site.address)


def test_the_key_is_sent_and_shown_nowhere(site: Site, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv("MYGPT_API_KEY", f"{KEY}\n")
    site.reply = lambda path, body: (401, {"error": f"Incorrect API key provided: {KEY}"}, {})
    completer = RemoteCompleter(f"{site.address}#one", run=run)
    with pytest.raises(MygptError) as caught:
        completer.complete([ask("a")], Sampling())
    assert str(caught.value) == (
        f'{site.address}/chat/completions answered 401: {{"error": "Incorrect API key provided: [key]"}} '
        "Check the address, the model's name and $MYGPT_API_KEY."
    )
    assert site.seen[0][2]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in json.dumps(completer.identity) + repr(completer) + str(completer)
    assert KEY not in (run.folder / "events.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("key", ["clé", "two\nlines", "bell\x07"])
def test_a_key_that_cannot_be_one_is_not_repeated(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYGPT_API_KEY", key)
    with pytest.raises(UsageError) as caught:
        RemoteCompleter("http://127.0.0.1:1/v1#one")
    assert key not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(site: Site, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """The network guard of the test suite would also stop a request that left this machine."""
    monkeypatch.setenv("MYGPT_API_KEY", KEY)
    site.reply = lambda path, body: (status, {}, {"Location": "http://elsewhere.example/v1/chat/completions"})
    with pytest.raises(MygptError, match=r"sends its callers to http://elsewhere\.example/v1/chat/completions"):
        RemoteCompleter(f"{site.address}#one").complete([ask("private")], Sampling())
    assert len(site.seen) == 1


def test_offline_refuses_other_machines_only(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYGPT_OFFLINE", "1")
    with pytest.raises(Unreachable, match=r"The completer at https://models\.example/v1 needs a connection, and `--offline` is on"):
        RemoteCompleter("https://models.example/v1#one")
    site.reply = lambda path, body: said("here")
    assert RemoteCompleter(f"{site.address}#one").complete([ask("a")], Sampling())[0].text == "here"


def test_a_proxy_is_not_used_for_this_machine(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    site.reply = lambda path, body: said("directly")
    assert RemoteCompleter(f"{site.address}#one").complete([ask("a")], Sampling())[0].text == "directly"


@pytest.mark.parametrize("address", ["localhost:8000/v1", "ftp://127.0.0.1/v1", "http://", "http://127.0.0.1:x/v1", "http://[::1/v1", ""])
def test_what_is_no_address_is_a_usage_error(address: str) -> None:
    with pytest.raises(UsageError, match="is not the address of a server"):
        RemoteCompleter(address)


@pytest.mark.parametrize("address", [f"http://me:{KEY}@127.0.0.1:1/v1", f"http://127.0.0.1:1/v1?key={KEY}", f"me:{KEY}@127.0.0.1:1/v1"])
def test_an_address_with_a_secret_in_it_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(UsageError, match=r"\$MYGPT_API_KEY") as caught:
        RemoteCompleter(address)
    assert KEY not in str(caught.value)
