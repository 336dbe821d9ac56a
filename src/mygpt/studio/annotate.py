"""The annotation page: people rank several answers to a prompt, not knowing whose they are.

GET /                   the page                        GET /api/task?rater=NAME[&number=N]   the next item, or the N-th
GET /static/{name}      its files                       POST /api/ratings                     one rating; answers with the next item
                                                        POST /api/finish                      publish the Ratings artefact

Nothing that the page is sent names a system. Everything on it is text, never HTML; the guard of the chat page (Host, Origin,
Content-Security-Policy with Trusted Types) stands around it.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from jinja2 import Environment, StrictUndefined
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mygpt.artifacts.ratings import Choice
from mygpt.serve.api_error import ApiError, json_response
from mygpt.serve.guards import LOOPBACK_HOSTS, Guard
from mygpt.serve.json_api import NO_TELEMETRY, answer_errors_in_shape, read_json
from mygpt.serve.page_files import page_files
from mygpt.serve.server import serve
from mygpt.studio.rating_box import RatedItem, RatingBox

MAX_BODY_BYTES = 100_000
MOST_SECONDS = 86_400  # a day: longer, the clock was wrong
_SHARED_WITH_CHAT = ("chat.css", "icon.svg")


class _Given(BaseModel):
    """The body of POST /api/ratings."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    rater: str
    item_id: str
    shown: str  # the token that came with the item
    choice: Choice
    ranks: list[int]
    seconds: float


def annotate(
    items: Sequence[RatedItem],
    *,
    home: Path,
    name: str,
    seed: int = 0,
    port: int = 8081,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the page on 127.0.0.1 until Ctrl-C; what was rated is published then."""
    serve(create_app(items, home=home, name=name, seed=seed), port=port, on_ready=on_ready)


def create_app(
    items: Sequence[RatedItem], *, home: Path, name: str, title: str = "", seed: int = 0, allowed_hosts: Sequence[str] = LOOPBACK_HOSTS
) -> FastAPI:
    """`name` is that of the log and of the artefact: with the same name, rating goes on where it stopped."""
    box = RatingBox(items, home=home, name=name, seed=seed)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(box.close)

    app = FastAPI(title=title or name, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan, telemetry=NO_TELEMETRY)
    app.add_middleware(Guard, allowed_hosts=tuple(host.lower() for host in allowed_hosts), api_key=None)  # type: ignore[arg-type]
    app.state.allowed_hosts, app.state.api_key, app.state.stop_answering = tuple(allowed_hosts), None, lambda: None
    answer_errors_in_shape(app, docs="docs/studio/annotate.md")
    _add_page(app, title or name)
    _add_ratings(app, box)
    return app


def _add_page(app: FastAPI, title: str) -> None:
    folder = files("mygpt.studio").joinpath("page")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(folder.joinpath("annotate.html.jinja").read_text(encoding="utf-8")).render(title=title)
    chat = page_files()
    static = {name: (chat[name].content, chat[name].media_type) for name in _SHARED_WITH_CHAT}
    for name, media_type in (("annotate.css", "text/css; charset=utf-8"), ("annotate.js", "text/javascript; charset=utf-8")):
        static[name] = (folder.joinpath(name).read_bytes(), media_type)

    @app.get("/")
    async def index() -> Response:
        return Response(page, media_type="text/html; charset=utf-8")

    @app.get("/static/{name}")
    async def static_file(name: str) -> Response:
        if name not in static:
            raise HTTPException(404)
        content, media_type = static[name]
        return Response(content, media_type=media_type)


def _add_ratings(app: FastAPI, box: RatingBox) -> None:
    @app.get("/api/task")
    async def task(request: Request) -> Response:
        asked = request.query_params
        number = asked.get("number")
        if number is not None and not (number.isascii() and number.isdigit() and len(number) < 9 and int(number) < len(box.items)):
            raise ApiError(400, f"`number` goes from 0 to {len(box.items) - 1}.", param="number", code="invalid_parameter")
        return json_response(await run_in_threadpool(_task, box, asked.get("rater", ""), None if number is None else int(number)))

    @app.post("/api/ratings")
    async def rate(request: Request) -> Response:
        given = await _given(request)

        def add() -> dict[str, Any]:
            rater = box.rater(given.rater)
            if given.item_id in box.items and given.shown != box.token(rater, box.items[given.item_id]):
                message = "These answers were shown in another order before the server was started anew. Reload the page and rate again."
                raise ApiError(409, message, param="shown", code="out_of_date")
            box.add(rater, given.item_id, choice=given.choice, ranks=given.ranks, seconds=given.seconds)
            return _task(box, rater, None)

        return json_response(await run_in_threadpool(add))

    @app.post("/api/finish")
    async def finish(request: Request) -> Response:
        await read_json(request, max_bytes=MAX_BODY_BYTES)
        made = await run_in_threadpool(box.finish)
        return json_response({"artifact": made.id, "facts": made.manifest.facts})


def _task(box: RatingBox, name: str, number: int | None) -> dict[str, Any]:
    """Item `number` of this rater's order, or the first that is left. What is sent is what the rater may know."""
    rater = box.rater(name)
    order, rated = box.order(rater), box.ratings(rater)
    if number is None:
        number = next((n for n, item in enumerate(order) if item.id not in rated), None)
    told: dict[str, Any] = {"rater": rater, "total": len(order), "done": len(rated), "number": number, "item": None, "rating": None}
    if number is not None:
        item = order[number]
        shown = box.shown(rater, item)
        token = box.token(rater, item)
        told["item"] = {"id": item.id, "shown": token, "prompt": item.prompt, "answers": [answer.text for answer in shown]}
        if rating := rated.get(item.id):
            places = dict(zip((answer.system for answer in rating.answers), rating.ranks, strict=bool(rating.ranks)))
            told["rating"] = {"choice": rating.choice, "ranks": [places[answer.system] for answer in shown if places]}
    return told


async def _given(request: Request) -> _Given:
    try:
        given = _Given.model_validate(await read_json(request, max_bytes=MAX_BODY_BYTES))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param = str(first["loc"][0])
        raise ApiError(400, f"`{param}`: {first['msg']}.", param=param, code="invalid_parameter") from error
    if not 0 <= given.seconds <= MOST_SECONDS:
        raise ApiError(400, f"`seconds` goes from 0 to {MOST_SECONDS}.", param="seconds", code="invalid_parameter")
    return given
