"""Who is answered at all. Hosts, origins and fetch metadata as browsers send them."""

import socket

import pytest

from mygpt.infer.scripted import ScriptedCompleter
from mygpt.serve.guards import SECURITY_HEADERS
from tests.serve.live_site import app_of, running

PATHS = [
    ("GET", "/"),
    ("GET", "/static/chat.js"),
    ("GET", "/health"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/handbook"),
    ("GET", "/api/page"),
]
PATHS += [
    ("GET", "/api/source?document_id=doc1&start=0&end=5"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/feedback"),
    ("GET", "/nothing"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with running(app_of(ScriptedCompleter(lambda c: "Yes."), home=home), home) as site:
        yield site


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_a_rebound_name_gets_no_answer(site, method, path):
    for host in (
        "evil.example",
        f"evil.example:{site.port}",
        "127.0.0.1.evil.example",
        "localhost.",
        "127.0.0.1@evil.example",
        "",
        "0.0.0.0",
    ):
        status, answer = site.json(method, path, headers={"Host": host}, body={} if method == "POST" else None)
        assert (status, answer["error"]["code"]) == (421, "unknown_host"), host


def test_every_name_of_this_machine_is_answered(site):
    for host in (f"127.0.0.1:{site.port}", f"localhost:{site.port}", f"LOCALHOST:{site.port}", f"[::1]:{site.port}", "localhost"):
        assert site.request("GET", "/health", headers={"Host": host})[0] == 200, host


def test_two_host_headers_or_none_are_refused(site):
    for lines in (b"Host: localhost\r\nHost: evil.example\r\n", b""):
        with socket.create_connection(("127.0.0.1", site.port), timeout=5) as connection:
            connection.sendall(b"GET /health HTTP/1.0\r\n" + lines + b"\r\n")
            status = connection.recv(100).split(b" ")[1]
        assert status in (b"400", b"421"), lines


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_other_origins_are_refused(site, method, path):
    body = {} if method == "POST" else None
    for origin in (
        "https://evil.example",
        "null",
        "http://127.0.0.1",
        f"http://127.0.0.1:{site.port + 1}",
        "http://[bad",
        f"file://127.0.0.1:{site.port}",
    ):
        status, answer = site.json(method, path, headers={"Origin": origin}, body=body)
        assert (status, answer["error"]["code"]) == (403, "cross_origin"), origin
    for relation in ("cross-site", "same-site"):
        status, _ = site.json(method, path, headers={"Sec-Fetch-Site": relation, "Sec-Fetch-Mode": "cors"}, body=body)
        assert status == 403, relation


def test_the_page_itself_may_ask(site):
    own = {"Origin": site.address, "Sec-Fetch-Site": "same-origin"}
    body = {"model": "handbook", "messages": [{"role": "user", "content": "?"}]}
    status, answer = site.json("POST", "/v1/chat/completions", body=body, headers=own)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "Yes.")


def test_a_link_from_elsewhere_opens_the_page_and_nothing_else(site):
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert site.request("GET", "/", headers=followed)[0] == 200
    assert site.request("GET", "/v1/models", headers=followed)[0] == 403
    assert site.request("GET", "/", headers={**followed, "Sec-Fetch-Dest": "iframe"})[0] == 403


@pytest.mark.parametrize(("method", "path"), [*PATHS, ("DELETE", "/"), ("OPTIONS", "/v1/chat/completions")])
def test_every_response_carries_the_security_headers_and_no_cors(site, method, path):
    for headers in ({}, {"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        _, received, _ = site.request(method, path, headers=headers, body={} if method == "POST" else None)
        assert {k: received.get(k.lower()) for k in SECURITY_HEADERS} == SECURITY_HEADERS
        assert not [name for name in received if name.startswith("access-control-")] and "server" not in received


def test_the_policy_lets_nothing_in():
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    required = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    assert policy.startswith(required + "form-action 'none'; frame-ancestors 'none'") and "unsafe" not in policy and "*" not in policy


def test_a_failure_inside_is_guarded_too(site_of):
    def broken(document_id, start, end):
        raise KeyError("private detail")

    site = site_of(ScriptedCompleter(lambda c: "x"), source_passage=broken)
    status, headers, content = site.request("GET", "/api/source?document_id=a&start=0&end=1")
    assert status == 500 and b"private detail" not in content and "content-security-policy" in headers


def test_there_is_no_other_way_to_files_or_documentation(site):
    for path in (
        "/docs",
        "/redoc",
        "/openapi.json",
        "/static/../api.py",
        "/static/%2e%2e/api.py",
        "/static/..%2fapi.py",
        "/static/index.html",
        "/static/",
        "/page/",
    ):
        status, _, content = site.request("GET", path)
        assert status == 404 and b"import" not in content, path


def test_web_sockets_are_refused(site):
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    assert site.request("GET", "/v1/models", headers=upgrade)[0] != 101


def test_sources(site):
    status, view = site.json("GET", "/api/source?document_id=doc1&start=40&end=73")
    assert (
        status == 200
        and view["cited"] == "Days not taken lapse on 31 March."
        and view["before"].endswith("a year.\n")
        and view["place"] == "page 3"
    )
    for query, expected in {
        "document_id=doc2&start=0&end=1": 404,
        "document_id=doc1&start=5&end=5": 400,
        "document_id=doc1&start=-1&end=5": 400,
        "": 400,
    }.items():
        assert site.json("GET", f"/api/source?{query}")[0] == expected, query
    assert site.json("GET", "/api/source?document_id=doc1&start=x&end=1")[0] == 400
