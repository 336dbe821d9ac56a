"""A real server on a free port of 127.0.0.1, with completers whose every piece the test controls."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from mygpt.artifacts.corpus import Span
from mygpt.artifacts.dataset import Conversation
from mygpt.infer.protocols import Answer, Citation, Identity, Sampling
from mygpt.serve.api import create_app
from mygpt.serve.served import Served, SourceView
from mygpt.serve.server import address_of, listen, server_for

PASSAGE = "Everyone has 28 days of holiday a year.\nDays not taken lapse on 31 March.\nAsk your lead before booking."
CITED = (40, 73)  # "Days not taken lapse on 31 March."


@dataclass
class Paced:
    """Streams an answer in pieces of `piece` characters; `before_each` may wait or fail. Notes who came, who left and how far."""

    reply: Callable[[Conversation], Answer]
    piece: int = 4
    before_each: Callable[[Conversation, int], None] = lambda conversation, index: None

    def __post_init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.samplings: list[Sampling] = []
        self.conversations: list[Conversation] = []
        self.pieces_out = 0
        self.closed = threading.Event()

    @property
    def identity(self) -> Identity:
        return {"engine": "paced"}

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        return [self.reply(conversation) for conversation in conversations]

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[str | Answer]:
        self.events.append(("in", conversation.question))
        self.samplings.append(sampling)
        self.conversations.append(conversation)
        try:
            answer = self.reply(conversation)
            for index, start in enumerate(range(0, len(answer.text), self.piece)):
                self.before_each(conversation, index)
                self.pieces_out += 1
                yield answer.text[start : start + self.piece]
            yield answer
        finally:
            self.events.append(("out", conversation.question))
            self.closed.set()


def words(conversation: Conversation) -> int:
    return sum(len(message.content.split()) for message in conversation.messages)


def cited_answer(text: str, sentence: str, **changes: Any) -> Answer:
    """`sentence` of `text` is supported by CITED."""
    start = text.index(sentence)
    span = Span("doc1", *CITED, place="page 3")
    citation = Citation(start, start + len(sentence), span, PASSAGE[slice(*CITED)], 0.83, path="hr/holidays.md", title="Holiday policy")
    return Answer(text, token_ids=tuple(range(7)), citations=(citation,), **changes)


def source_passage(document_id: str, start: int, end: int) -> SourceView | None:
    if document_id != "doc1":
        return None
    return SourceView("Holiday policy", "hr/holidays.md", "page 3", PASSAGE[:start], PASSAGE[start:end], PASSAGE[end:])


@dataclass(frozen=True)
class Site:
    address: str  # http://127.0.0.1:PORT
    port: int
    home: Path

    def request(
        self, method: str, path: str, *, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Raw HTTP, so that a test can say anything in the headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        sent = {"Content-Type": "application/json", **(headers or {})}
        connection.request(method, path, body=body if isinstance(body, bytes | None) else json.dumps(body), headers=sent)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, content

    def json(self, method: str, path: str, **kwargs: Any) -> tuple[int, Any]:
        status, _, content = self.request(method, path, **kwargs)
        return status, json.loads(content)


@contextmanager
def running(app: FastAPI, home: Path) -> Iterator[Site]:
    with listen("127.0.0.1", 0) as listener:
        server = server_for(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        try:
            yield Site(address_of(listener), listener.getsockname()[1], home)
        finally:
            server.should_exit = True
            thread.join(timeout=10)
            assert not thread.is_alive(), "the server did not stop within 10 s"


def wait_until(condition: Callable[[], Any], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


def app_of(*completers: Any, home: Path, context_tokens: int = 100, template_digest: str = "", **settings: Any) -> FastAPI:
    """Models called `handbook` and `second`."""
    told = {"template_digest": template_digest}
    models = [Served(name, c, context_tokens, words, **told) for name, c in zip(("handbook", "second"), completers, strict=False)]
    return create_app(models, **{"source_passage": source_passage, "home": home, "title": "Handbook", **settings})
