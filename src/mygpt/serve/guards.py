"""What every request passes first, and what every response carries.

Host       must be a name on the list: a rebound DNS name never gets an answer (421)
Origin     and Sec-Fetch-Site must say "this page itself" or nothing: no other site can post or read (403)
key        where one is set, `Authorization: Bearer` on everything but the page's own files and /health (401)
headers    a Content-Security-Policy that lets the page load nothing from anywhere else, and run no inline script

Source: Fetch Metadata Request Headers (W3C); Content Security Policy Level 3; RFC 9110 sections 7.2 and 15.5.20.
"""

import hmac
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mygpt.serve.api_error import ApiError, as_api_error

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")

_CSP = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
SECURITY_HEADERS = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
_HEADER_PAIRS = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


@dataclass(frozen=True)
class Guard:
    """ASGI middleware around everything, so that errors and unknown paths are guarded too."""

    app: ASGIApp
    allowed_hosts: Sequence[str]
    api_key: str | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # no web sockets here: an unanswered handshake is refused
        started = False

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                given = {name.lower() for name, _ in message.get("headers", [])}
                headers = [*message.get("headers", []), *(pair for pair in _HEADER_PAIRS if pair[0] not in given)]
                message = {**message, "headers": headers}
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, receive, guarded_send)
        except ApiError as refused:
            await refused.response(scope, receive, guarded_send)
        except Exception as error:
            logging.getLogger(__name__).error("%s %s failed", scope["method"], scope["path"], exc_info=error)
            if started:
                raise
            await as_api_error(error).response(scope, receive, guarded_send)

    def _check(self, scope: Scope) -> None:
        host = (_only(scope, b"host") or "").lower()
        if _name(host) not in self.allowed_hosts:
            raise ApiError(
                421,
                "This server does not answer under that host name. Use http://127.0.0.1 with its port.",
                kind="permission_error",
                code="unknown_host",
            )
        if not _is_same_origin(scope, host):
            message = "Requests from other sites are refused. Open the page itself."
            raise ApiError(403, message, kind="permission_error", code="cross_origin")
        if self.api_key is not None and not _is_public(scope["path"]) and not _has_key(scope, self.api_key):
            raise ApiError(
                401,
                "This server needs its API key: send `Authorization: Bearer KEY`.",
                kind="authentication_error",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _is_same_origin(scope: Scope, host: str) -> bool:
    origins = _values(scope, b"origin")
    if origins:
        return len(origins) == 1 and origins[0].lower() in (f"http://{host}", f"https://{host}")
    site = _only(scope, b"sec-fetch-site")
    if site in (None, "none", "same-origin"):
        return True
    # Following a link to the page itself is harmless: it shows nothing and changes nothing, and cannot be framed.
    to_document = _only(scope, b"sec-fetch-mode") == "navigate" and _only(scope, b"sec-fetch-dest") == "document"
    return scope["method"] == "GET" and scope["path"] == "/" and to_document


def _is_public(path: str) -> bool:
    return path in ("/", "/health") or path.startswith("/static/")


def _has_key(scope: Scope, key: str) -> bool:
    scheme, _, token = (_only(scope, b"authorization") or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode("latin-1"), key.encode())


def _name(host: str) -> str:
    """`localhost:8080` -> `localhost`, `[::1]:8080` -> `[::1]`."""
    return host[: host.find("]") + 1] if host.startswith("[") else host.rsplit(":", 1)[0]


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _only(scope: Scope, name: bytes) -> str | None:
    """The header's value where it is there exactly once."""
    values = _values(scope, name)
    return values[0] if len(values) == 1 else None
