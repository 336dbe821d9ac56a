"""Listening: on this machine only, unless the app has a key and knows under which names it is reached."""

import errno
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from mygpt.core.errors import MygptError, Refused, UsageError
from mygpt.core.outbound import is_this_machine
from mygpt.serve.guards import LOOPBACK_HOSTS

_PORTS_TRIED = 20
_GRACE_SECONDS = 3  # for connections to close when the server is stopped


def serve(app: FastAPI, *, host: str = "127.0.0.1", port: int = 8080, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve until Ctrl-C; `on_ready` gets the address once connections are accepted. Raises before anything is bound wrongly."""
    _require_protection(app, host)
    with listen(host, port) as listener:
        if on_ready is not None:
            on_ready(address_of(listener))  # the socket listens already: whoever connects now is answered
        with suppress(KeyboardInterrupt):  # uvicorn has shut down in order by then, and passes the signal on
            server_for(app).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket (port 0: any free one), or an error that names a port that is free."""
    if not 0 <= port <= 65535:
        raise UsageError(f"There is no port {port}.", fix="Ports go from 1 to 65535; 0 takes any free one.")
    try:
        return _bound(host, port)
    except OSError as error:
        raise _why_not(error, host, port) from error


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """Stops answers under way first: else stopping would wait for them."""

    def __init__(self, app: FastAPI, config: uvicorn.Config):
        super().__init__(config)
        self._stop_answering: Callable[[], None] = app.state.stop_answering

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stop_answering()
        await super().shutdown(sockets)


def server_for(app: FastAPI) -> uvicorn.Server:
    """No access log (questions are private), no trust in forwarding headers, no web sockets."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ws="none",
        loop="asyncio",
        http="h11",
        lifespan="on",
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    return _Server(app, config)


def _require_protection(app: FastAPI, host: str) -> None:
    if is_this_machine(f"//[{host}]" if ":" in host else f"//{host}"):
        return
    if not app.state.api_key:
        raise Refused(
            f"Listening on {host} would let other machines read answers from your documents without a key.",
            fix="Set one with `--api-key`, or stay on 127.0.0.1.",
        )
    if set(app.state.allowed_hosts) <= set(LOOPBACK_HOSTS):
        raise UsageError(
            f"Listening on {host}, but no name is allowed under which another machine could ask for it.",
            fix="Name it with `--allow-host NAME`, as it stands in the browser's address bar.",
        )


def _bound(host: str, port: int) -> socket.socket:
    host = "127.0.0.1" if host == "localhost" else host  # a name server has no say in what this machine is
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def _why_not(error: OSError, host: str, port: int) -> MygptError:
    if error.errno == errno.EADDRINUSE:
        free = _free_port(host, port)
        fix = f"Port {free} is free: `--port {free}`." if free else "Choose another with `--port`."
        return MygptError(f"Port {port} on {host} is in use by another program.", fix=fix)
    if error.errno in (errno.EACCES, errno.EPERM):
        return MygptError(f"Port {port} needs more rights than this user has.", fix="Choose one above 1023: `--port 8080`.")
    return MygptError(f"Cannot listen on {host}, port {port}: {error.strerror or error}.", fix="Name an address of this machine.")


def _free_port(host: str, taken: int) -> int | None:
    for port in range(taken + 1, min(taken + 1 + _PORTS_TRIED, 65536)):
        try:
            _bound(host, port).close()
        except OSError:
            continue
        return port
    return None
