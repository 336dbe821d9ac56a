"""Errors on the wire, in OpenAI's shape: {"error": {"message", "type", "param", "code"}}. The message says what to do."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from mygpt.core.errors import MygptError, Refused, Unreachable, UsageError


class ApiError(Exception):
    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.kind, self.param, self.code = status, message, kind, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> Response:
        return json_response(self.body, status=self.status, headers=self.headers)


def as_api_error(error: Exception) -> ApiError:
    """Any failure in words for the client. What is our fault keeps its details in the log."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UsageError):
        return ApiError(400, str(error))
    if isinstance(error, Refused):
        return ApiError(403, str(error), kind="permission_error")
    if isinstance(error, Unreachable):
        return ApiError(503, str(error), kind="server_error", code="unreachable")
    if isinstance(error, MygptError):
        return ApiError(500, str(error), kind="server_error")
    return ApiError(
        500,
        f"The server failed ({type(error).__name__}). Try again; the terminal where it runs shows the details.",
        kind="server_error",
        code="internal_error",
    )


def json_response(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """ASCII only, so that no text from a model or document can be ill-formed on the wire."""
    return Response(json.dumps(value, allow_nan=False), status_code=status, headers=headers, media_type="application/json")
