"""What every JSON API of this project does alike: reading a bounded body, and answering every error in one shape."""

from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mygpt.core.errors import MygptError
from mygpt.serve.api_error import ApiError, as_api_error
from mygpt.serve.openai_format import parse_json

# FastAPI can send paths, queries and exceptions to a collector that the environment names. Not from here.
NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False}
_DRAINED = 16  # times the limit: read and thrown away, so that a client who sends too much hears why


async def read_json(request: Request, *, max_bytes: int) -> dict[str, Any]:
    """The body, a JSON object. Raises ApiError: 415 for another type, 413 for too much, 400 for what is no JSON object."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "Send JSON, with the header `Content-Type: application/json`.", code="unsupported_media_type")
    body, num_bytes = bytearray(), 0
    async for part in request.stream():
        num_bytes += len(part)
        if num_bytes <= max_bytes:
            body += part
        elif num_bytes > _DRAINED * max_bytes:
            break
    if num_bytes > max_bytes:
        raise ApiError(413, f"The request is over {max_bytes:,} bytes. Send less at a time.", code="request_too_large")
    return parse_json(bytes(body))


def answer_errors_in_shape(app: FastAPI, *, docs: str) -> None:
    """`docs`: the page that lists the addresses, for those who ask at another."""

    @app.exception_handler(ApiError)
    @app.exception_handler(MygptError)
    async def failed(request: Request, error: Exception) -> Response:
        return as_api_error(error).response  # any other exception: see Guard

    @app.exception_handler(HTTPException)
    async def no_such_route(request: Request, error: HTTPException) -> Response:
        what = f"{request.method} is not offered" if error.status_code == 405 else "There is nothing"
        return ApiError(error.status_code, f"{what} at this address. See `{docs}`.", code="not_found", headers=error.headers).response
