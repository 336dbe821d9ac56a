"""One answer at a time, in the order of asking; whoever hangs up frees the engine."""

import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from mygpt.infer.protocols import Answer
from mygpt.serve.turns import MAX_WAITING
from tests.serve.live_site import Paced, app_of, running, wait_until


def slow(seconds):
    return lambda conversation, index: time.sleep(seconds)


def send(site, question, *, stream):
    """A request whose answer nobody reads yet."""
    body = json.dumps({"model": "handbook", "messages": [{"role": "user", "content": question}], "stream": stream}).encode()
    connection = socket.create_connection(("127.0.0.1", site.port), timeout=10)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def post(site, question, model="handbook"):
    return site.json("POST", "/v1/chat/completions", body={"model": model, "messages": [{"role": "user", "content": question}]})


def test_requests_take_turns_in_order(site_of):
    gate = threading.Event()
    completer = Paced(lambda c: Answer("abcdefgh"), before_each=lambda c, i: gate.wait(10))
    site = site_of(completer)
    with ThreadPoolExecutor(4) as pool:
        answers = []
        for number in range(4):
            answers.append(pool.submit(post, site, str(number)))
            if number == 0:
                wait_until(lambda: completer.events)
            time.sleep(0.05)  # so that they arrive in this order
        gate.set()
        assert [a.result()[0] for a in answers] == [200] * 4
    assert completer.events == [(what, str(number)) for number in range(4) for what in ("in", "out")]


def test_models_with_their_own_engines_do_not_wait_for_each_other(site_of):
    gate = threading.Event()
    held, free = Paced(lambda c: Answer("held"), before_each=lambda c, i: gate.wait(10)), Paced(lambda c: Answer("free"))
    site = site_of(held, free)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, site, "a")
        wait_until(lambda: held.events)
        assert post(site, "b", "second")[1]["choices"][0]["message"]["content"] == "free"
        gate.set()
        assert first.result()[0] == 200


def test_names_that_share_an_engine_take_turns(site_of):
    shared = Paced(lambda c: Answer("abcdefgh"), before_each=slow(0.02))
    site = site_of(shared, shared)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: post(site, name, name), ["handbook", "second"]))
    assert [what for what, _ in shared.events] == ["in", "out", "in", "out"]


@pytest.mark.parametrize("stream", [True, False])
def test_hanging_up_stops_the_engine_within_a_token_or_two(site_of, stream):
    completer = Paced(lambda c: Answer("x" * 4000), before_each=slow(0.02))  # 20 s if nobody stops it
    site = site_of(completer)
    connection = send(site, "long", stream=stream)
    wait_until(lambda: completer.pieces_out >= 5)
    connection.close()
    left = completer.pieces_out
    assert completer.closed.wait(2)
    assert completer.pieces_out - left <= 10  # a piece is 20 ms here; noticing takes up to 200 ms on a busy machine


def test_hanging_up_in_the_queue_never_starts(site_of):
    gate = threading.Event()
    completer = Paced(lambda c: Answer("abcd"), before_each=lambda c, i: gate.wait(10))
    site = site_of(completer)
    first = send(site, "first", stream=True)
    wait_until(lambda: completer.events)
    second = send(site, "second", stream=True)
    time.sleep(0.1)
    second.close()
    time.sleep(0.2)
    gate.set()
    assert post(site, "third")[0] == 200
    first.close()
    assert [q for what, q in completer.events if what == "in"] == ["first", "third"]


def test_a_full_queue_says_so(site_of):
    gate = threading.Event()
    completer = Paced(lambda c: Answer("abcd"), before_each=lambda c, i: gate.wait(10))
    site = site_of(completer)
    waiting = [send(site, str(number), stream=False) for number in range(MAX_WAITING + 1)]
    wait_until(lambda: completer.events)
    for _ in range(10):  # the last of them may still be on their way: then this one waits, too, and is taken back
        refused = send(site, "one too many", stream=False)
        refused.settimeout(0.5)
        with suppress(TimeoutError):
            status = http.client.HTTPResponse(refused)
            status.begin()
            break
        refused.close()
    assert (status.status, status.headers["Retry-After"], json.loads(status.read())["error"]["code"]) == (429, "5", "queue_full")
    refused.close()
    gate.set()
    for connection in waiting:
        assert connection.recv(20).startswith(b"HTTP/1.1 200")
        connection.close()


def test_stopping_the_server_stops_the_engine(tmp_path):
    completer = Paced(lambda c: Answer("x" * 40_000), before_each=slow(0.01))
    with running(app_of(completer, home=tmp_path), tmp_path) as site:
        stream, whole, waits = (send(site, name, stream=name == "stream") for name in ("stream", "whole", "waits"))
        wait_until(lambda: completer.pieces_out > 5)
        started = time.monotonic()
    assert time.monotonic() - started < 2 and completer.closed.wait(2)
    assert [q for what, q in completer.events if what == "in"] == ["stream"]
    for connection in (stream, whole, waits):
        received = b"".join(iter(lambda c=connection: c.recv(65536), b""))
        assert b"The server is stopping" in received and (b" 503 " in received[:20]) == (connection is not stream)
        connection.close()
