"""The app: OpenAI-compatible chat, feedback, sources of citations, and the chat page, behind one guard.

POST /v1/chat/completions   GET /v1/models, /v1/models/{id}   GET /health
POST /v1/completions        (raw text: scored with `echo`, or continued)
POST /v1/feedback           GET /api/source                   GET /api/page, /, /static/{name}
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

import mygpt
from mygpt.core.digest import digest_value
from mygpt.core.errors import MygptError, UsageError
from mygpt.infer.protocols import Answer
from mygpt.serve.api_error import ApiError, as_api_error, json_response
from mygpt.serve.feedback import FeedbackBox, parse_vote
from mygpt.serve.guards import LOOPBACK_HOSTS, Guard
from mygpt.serve.json_api import NO_TELEMETRY, answer_errors_in_shape, read_json
from mygpt.serve.openai_format import Reply, parse_chat
from mygpt.serve.page_files import page_files
from mygpt.serve.served import Served, SourcePassage
from mygpt.serve.text_completions import text_choices
from mygpt.serve.text_format import Choice, parse_text, text_reply
from mygpt.serve.turns import ClientGone, Generation, Started, Turns, chat_items

MIN_KEY_CHARACTERS = 16
MAX_BODY_BYTES = 1_000_000
_DONE = "data: [DONE]\n\n"


def create_app(
    models: Sequence[Served],
    *,
    source_passage: SourcePassage,
    home: Path,
    title: str,
    suggestions: Sequence[str] = (),
    allowed_hosts: Sequence[str] = LOOPBACK_HOSTS,
    api_key: str | None = None,
) -> FastAPI:
    """`allowed_hosts` are the names under which browsers may reach this server, without port; `suggestions` start the chat page."""
    served = {model.name: model for model in models}
    if not served or len(served) != len(models):
        raise AssertionError("create_app() needs at least one model, each under its own name")
    if api_key is not None and (len(api_key) < MIN_KEY_CHARACTERS or not api_key.isascii() or " " in api_key):
        fix = "For example, what `openssl rand -hex 24` prints."
        raise UsageError(f"An API key needs at least {MIN_KEY_CHARACTERS} characters, ASCII and without spaces.", fix=fix)
    turns = {model.turn_key: Turns() for model in models}
    box = FeedbackBox(home)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(box.publish_all)
        yield
        stop_answering()
        await run_in_threadpool(box.close)

    def stop_answering() -> None:
        for queue in turns.values():
            queue.close()

    app = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan, telemetry=NO_TELEMETRY)
    app.add_middleware(Guard, allowed_hosts=tuple(host.lower() for host in allowed_hosts), api_key=api_key)  # type: ignore[arg-type]
    app.state.allowed_hosts, app.state.api_key, app.state.stop_answering = tuple(allowed_hosts), api_key, stop_answering
    answer_errors_in_shape(app, docs="docs/serve/api.md")

    @app.exception_handler(ClientGone)
    async def nobody_to_answer(request: Request, error: ClientGone) -> Response:
        return Response(status_code=499)  # nginx's number for it; never seen by anyone

    _add_chat(app, served, turns)
    _add_texts(app, served, turns)
    _add_models(app, served)
    _add_feedback(app, served, box)
    _add_page(app, source_passage, {"title": title, "models": list(served), "suggestions": list(suggestions)})
    return app


def _add_chat(app: FastAPI, served: dict[str, Served], turns: dict[int, Turns]) -> None:
    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        asked = parse_chat(await read_json(request, max_bytes=MAX_BODY_BYTES))
        model = _model(served, asked.model)
        generation = turns[model.turn_key].start(model.name, chat_items(model, asked))
        watch = asyncio.create_task(generation.cancel_when_gone(request))
        streaming = False
        try:
            started = await generation.next()
            assert isinstance(started, Started)
            reply = Reply(model.name, started.prompt_tokens, asked.include_usage)
            if asked.stream:
                streaming = True
                return StreamingResponse(_events(generation, reply, watch), media_type="text/event-stream")
            while not isinstance(item := await generation.next(), Answer):
                pass
            return json_response(reply.completion(item))
        finally:
            if not streaming:
                watch.cancel()
                generation.cancel()


def _add_texts(app: FastAPI, served: dict[str, Served], turns: dict[int, Turns]) -> None:
    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        asked = parse_text(await read_json(request, max_bytes=MAX_BODY_BYTES))
        model = _model(served, asked.model)
        generation = turns[model.turn_key].start(model.name, text_choices(model, asked))
        watch = asyncio.create_task(generation.cancel_when_gone(request))
        try:
            choices: list[Choice] = []
            while len(choices) < len(asked.prompts):
                if isinstance(item := await generation.next(), Choice):
                    choices.append(item)
            return json_response(text_reply(model.name, choices))
        finally:
            watch.cancel()
            generation.cancel()


async def _events(generation: Generation, reply: Reply, watch: "asyncio.Task[None]") -> AsyncIterator[str]:
    """Server-sent events: role, text, finish reason with citations, usage where asked for, [DONE]."""
    try:
        yield _event(reply.chunk({"role": "assistant", "content": ""}))
        streamed = ""
        while not isinstance(item := await generation.next(), Answer):
            streamed += str(item)
            yield _event(reply.chunk({"content": item}))
        if item.text.startswith(streamed) and item.text != streamed:
            yield _event(reply.chunk({"content": item.text[len(streamed) :]}))
            streamed = item.text
        yield _event(reply.last_chunk(item, streamed))
        if reply.include_usage:
            yield _event(reply.usage_chunk(item))
        yield _DONE
    except ClientGone:
        return
    except Exception as error:
        yield _event(_told(error).body)
        yield _DONE
    finally:
        watch.cancel()
        generation.cancel()


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, allow_nan=False)}\n\n"


def _add_models(app: FastAPI, served: dict[str, Served]) -> None:
    created = int(time.time())

    def described(model: Served) -> dict[str, Any]:
        entry = {"id": model.name, "object": "model", "created": created, "owned_by": "mygpt", "context_tokens": model.context_tokens}
        template = {"template_digest": model.template_digest} if model.template_digest else {}
        return {**entry, "digest": digest_value(model.completer.identity), **template}

    @app.get("/v1/models")
    async def list_models() -> Response:
        return json_response({"object": "list", "data": [described(model) for model in served.values()]})

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> Response:
        return json_response(described(_model(served, name)))

    @app.get("/health")
    async def health() -> Response:
        return json_response({"status": "ok", "version": mygpt.__version__})


def _add_feedback(app: FastAPI, served: dict[str, Served], box: FeedbackBox) -> None:
    @app.post("/v1/feedback")
    async def feedback(request: Request) -> Response:
        vote = parse_vote(await read_json(request, max_bytes=MAX_BODY_BYTES))
        _model(served, vote.model)
        made = await run_in_threadpool(box.add, vote)
        return json_response({"object": "feedback", "stored": True, "artifact": made.id if made else None})


def _add_page(app: FastAPI, source_passage: SourcePassage, page: dict[str, Any]) -> None:
    static = page_files()

    @app.get("/")
    async def index() -> Response:
        return Response(static["index.html"].content, media_type=static["index.html"].media_type)

    @app.get("/static/{name}")
    async def static_file(name: str) -> Response:
        if name not in static or name == "index.html":
            raise HTTPException(404)
        return Response(static[name].content, media_type=static[name].media_type)

    @app.get("/api/page")
    async def page_settings() -> Response:
        return json_response(page)

    @app.get("/api/source")
    async def source(request: Request) -> Response:
        document_id, start, end = _place_asked_for(request)
        view = await run_in_threadpool(source_passage, document_id, start, end)
        if view is None:
            raise ApiError(404, "That passage is not in the documents any more. Ask again for a fresh answer.", code="source_not_found")
        return json_response(asdict(view))


def _place_asked_for(request: Request) -> tuple[str, int, int]:
    asked = request.query_params
    try:
        document_id, start, end = asked["document_id"], int(asked["start"]), int(asked["end"])
    except (KeyError, ValueError):
        raise ApiError(400, "Give `document_id`, `start` and `end`, as a citation does.", code="invalid_parameter") from None
    if not 0 <= start < end < 2**53:
        raise ApiError(400, f"`start` {start} and `end` {end} are not a stretch of text.", param="start", code="invalid_parameter")
    return document_id, start, end


def _model(served: dict[str, Served], name: str) -> Served:
    if name not in served:
        names = ", ".join(f"`{n}`" for n in served)
        raise ApiError(404, f"There is no model `{name[:80]}` here. Served: {names}.", param="model", code="model_not_found")
    return served[name]


def _told(error: Exception) -> ApiError:
    if not isinstance(error, ApiError | MygptError):
        logging.getLogger(__name__).error("A request failed", exc_info=error)
    return as_api_error(error)
