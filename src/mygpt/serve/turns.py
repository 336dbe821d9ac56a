"""One thread per engine: requests take turns in the order they came, and nothing else touches the engine.

    route (event loop)                      engine's thread
    generation = turns.start(...)   ---->   iterate the work: `chat_items`, or another generator
    await generation.next()         <----   what it yields: Started, then pieces of text, then the Answer (or the error)
    generation.cancel()             ---->   seen before the next piece: the stream is closed

A client that hangs up cancels its generation, waiting or running.
"""

import asyncio
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from threading import Event

from starlette.requests import Request

from mygpt.infer.protocols import Answer
from mygpt.serve.api_error import ApiError
from mygpt.serve.openai_format import ChatRequest
from mygpt.serve.served import Served
from mygpt.serve.text_format import Choice

MAX_WAITING = 16  # behind the one that is being answered


@dataclass(frozen=True)
class Started:
    prompt_tokens: int


class ClientGone(Exception):
    """The client hung up: there is nobody to answer."""


Item = Started | str | Answer | Choice | Exception


class Turns:
    """The queue of one engine."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generation")
        self._unfinished: list[Generation] = []
        self._closed = False

    def start(self, name: str, work: Generator[Item]) -> "Generation":
        """`name`: of the model, for whoever has to wait."""
        if self._closed:
            raise _stopping()
        self._unfinished = [g for g in self._unfinished if not g.done]
        if len(self._unfinished) > MAX_WAITING:
            raise ApiError(
                429,
                f"{MAX_WAITING} requests are already waiting for {name}. Try again in a moment.",
                kind="rate_limit_error",
                code="queue_full",
                headers={"Retry-After": "5"},
            )
        generation = Generation(work, asyncio.get_running_loop())
        generation.future = self._thread.submit(generation.run)
        self._unfinished.append(generation)
        return generation

    def close(self) -> None:
        """Call on the event loop: every answer under way ends with an error that says why."""
        self._closed = True
        for generation in self._unfinished:
            generation.cancel(_stopping())
        self._thread.shutdown(wait=False, cancel_futures=True)


@dataclass(eq=False)
class Generation:
    """One answer under way: made on the engine's thread, read on the event loop."""

    work: Generator[Item]
    loop: asyncio.AbstractEventLoop
    future: "Future[None]" = field(default_factory=Future)
    _items: "asyncio.Queue[Item]" = field(default_factory=asyncio.Queue)
    _stop: Event = field(default_factory=Event)

    @property
    def done(self) -> bool:
        return self.future.done()

    async def next(self) -> Started | str | Answer | Choice:
        item = await self._items.get()
        if isinstance(item, Exception):
            raise item
        return item

    def cancel(self, reason: Exception | None = None) -> None:
        """Call on the event loop. Whoever awaits `next` gets the reason."""
        self._stop.set()
        self.future.cancel()
        self._items.put_nowait(reason or ClientGone())

    async def cancel_when_gone(self, request: Request) -> None:
        """Watches the connection; the body has been read, so that the next message of note is its end."""
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.cancel()

    def run(self) -> None:
        """On the engine's thread."""
        try:
            with closing(self.work):
                for item in self.work:
                    if self._stop.is_set():
                        return
                    self._hand_over(item)
        except Exception as error:
            self._hand_over(error)

    def _hand_over(self, item: Item) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._items.put_nowait, item)


def chat_items(served: Served, asked: ChatRequest) -> Generator[Item]:
    """Count the prompt, then iterate the completer's stream."""
    prompt_tokens = served.count_tokens(asked.conversation)
    sampling = asked.sampling_within(served.context_tokens, prompt_tokens)
    yield Started(prompt_tokens)
    pieces = served.completer.stream(asked.conversation, sampling)
    try:
        for piece in pieces:
            yield piece
            if isinstance(piece, Answer):
                return
    finally:
        if hasattr(pieces, "close"):  # a generator; a plain iterator has nothing to close
            pieces.close()
    raise RuntimeError(f"{served.name}: the stream ended without an Answer")


def _stopping() -> ApiError:
    return ApiError(503, "The server is stopping. Start it again, then repeat the request.", kind="server_error", code="stopping")
