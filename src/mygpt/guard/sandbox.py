"""Run code that a model wrote, and nothing of it gets out: no network, no files but its own, no other process, bounded time and memory.

    run(code, inputs={"x": 3})                       one program, start to end
    with Sandbox(packages=("numpy",)) as sandbox:    kept warm: a fresh process for each program, a few milliseconds apiece
        sandbox.run(code)
        with sandbox.session() as session:           variables stay between programs
            session.run("total = 0"); session.run("total += 1\\ntotal").value

A program is Python text. `inputs` are its variables, `functions` are yours that it may call, and the value of its last statement, where
that is an expression, is its result. What crosses is plain values as JSON (`inside/values`), never pickle.

Linux, without root and without Docker: user, mount, process, network, IPC and host-name namespaces, a root of read-only libraries, an
empty /tmp in memory, resource limits, no capabilities, Landlock, and a seccomp list of what computing needs (`inside/`). Where the system
does not give one of these, it is refused with the reason; nothing ever runs without.

Source    the layers as bubblewrap, nsjail and the kernel's manual pages describe them; the program's value as in a notebook
We differ the program has no processes or threads at all, and sees no /proc
Limits    a flaw of the kernel itself is not kept out; see docs/guard/sandbox.md for what is and what is not
"""

import contextlib
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mygpt
from mygpt.core.errors import MygptError, Refused, UsageError
from mygpt.guard.inside import values
from mygpt.guard.inside.frames import HEADER_BYTES, framed, length_of

Functions = Mapping[str, Callable[..., Any]]
Wrapper = Callable[[list[str]], list[str]]  # a command, made to run inside another sandbox

PACKAGES: dict[str, tuple[str, ...]] = {  # name: what of it has to be seen, beside the folder or module of that name
    "numpy": ("numpy.libs",),
    "scipy": ("scipy.libs", "numpy", "numpy.libs"),
    "sympy": ("mpmath",),
    "mpmath": (),
    "dateutil": ("six.py",),
    "networkx": (),
}
_BOOT = (
    "import gc; gc.disable(); import sys; sys.path.append(sys.argv[1]); import json, _socket; from mygpt.guard.inside.keeper import main; "
    "gc.enable(); gc.freeze(); main(_socket.socket(fileno=int(sys.argv[2])), json.loads(sys.argv[3]))"
)
_GRACE_SECONDS = 5.0  # for the keeper to start, and for a monitor to say how a program ended
_STACK_BYTES = 8 << 20
_NO_LIMIT = 1e15
_MOST_CPU_SECONDS = 10**7
_SHOWN_CHARACTERS = 2_000  # of an exception's message
_SHOWN_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}  # ESC becomes a picture of itself
_SHOWN_CONTROLS |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


@dataclass(frozen=True, kw_only=True)
class Limits:
    seconds: float = 10.0  # of each program, by the clock
    memory_bytes: int = 512 << 20  # of address space: what is beyond raises MemoryError
    disk_bytes: int = 16 << 20  # in /tmp
    output_bytes: int = 64 << 10  # kept of each stream; what is beyond is read and thrown away
    result_bytes: int = 1 << 20
    descriptors: int = 64
    lifetime_seconds: float = 3_600.0  # of a session

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < _NO_LIMIT:
                raise UsageError(f"The limit `{name}` is {value}.", fix=f"Give a number above 0 and below {_NO_LIMIT:.0e}.")
            if not name.endswith("seconds") and not isinstance(value, int):
                raise UsageError(f"The limit `{name}` is {value}.", fix="Give a whole number.")


RAISED, TIME, CRASHED, ENDED, UNREADABLE = "raised", "time", "crashed", "ended", "unreadable"


@dataclass(frozen=True)
class Failure:
    """`kind` is what was seen from outside, and no program can feign or hide it; the rest is what the program says of itself.

    raised: an exception, SyntaxError and MemoryError among them; time: over its time; crashed: ended by a signal; ended: left without a
    result, as os._exit does; unreadable: what it wrote as its result is none.
    """

    kind: str
    type: str = ""  # of the exception
    message: str = ""
    line: int | None = None  # of the program

    def __str__(self) -> str:
        where = f" (line {self.line})" if self.line else ""
        return f"{self.type or self.kind}: {self.message}{where}" if self.message else f"{self.type or self.kind}{where}"


@dataclass(frozen=True)
class Outcome:
    value: Any  # None where it failed
    stdout: str
    stderr: str
    failure: Failure | None
    seconds: float  # by the clock, seen from outside
    is_cut: bool  # whether a stream wrote more than `output_bytes`
    cpu_seconds: float | None = None  # of a whole process: None inside a session
    peak_memory_bytes: int | None = None

    @property
    def ok(self) -> bool:
        return self.failure is None


class Sandbox:
    """A keeper process, isolated once, that forks a fresh process for every program. Safe to use from several threads."""

    def __init__(self, *, packages: Sequence[str] = (), preload: Sequence[str] = (), through: Wrapper | None = None):
        """`packages`: what programs may import beside Python's own library, of the table PACKAGES. `preload`: modules that the keeper
        imports once, so that programs find them there. `through`: run the keeper inside another sandbox too (`guard/bubblewrap`)."""
        self._packages, self._preload, self._through = package_paths(packages), tuple(preload), through
        self._lock = threading.RLock()
        self._keeper: _Keeper | None = None
        self._closed = False

    @property
    def identity(self) -> dict[str, Any]:
        packages = sorted({name.split(".")[0] for name in self._packages})
        return {"sandbox": "namespaces", "python": sys.version.split()[0], "packages": packages}

    def run(
        self, code: str, *, inputs: Mapping[str, Any] | None = None, functions: Functions | None = None, limits: Limits | None = None
    ) -> Outcome:
        """One program in a process of its own."""
        limits = limits or Limits()
        session = self.session(replace(limits, lifetime_seconds=min(limits.lifetime_seconds, limits.seconds + _GRACE_SECONDS)))
        with session:
            outcome = session.run(code, inputs=inputs, functions=functions)
        return replace(outcome, cpu_seconds=session.cpu_seconds, peak_memory_bytes=session.peak_memory_bytes)

    def session(self, limits: Limits | None = None) -> "Session":
        """A process whose variables stay from one program to the next. Close it, or use it in a `with` block."""
        limits = limits or Limits()
        with self._lock:
            if self._closed:
                raise UsageError("This sandbox is closed.", fix="Make a new one.")
            try:
                return Session(limits, self._living().fork(limits))
            except OSError:  # the keeper ended just now
                self._end_keeper()
                return Session(limits, self._living().fork(limits))

    def close(self) -> None:
        """End the keeper and whatever still runs. A closed sandbox stays closed."""
        with self._lock:
            self._closed = True
            self._end_keeper()

    def _living(self) -> "_Keeper":
        if self._keeper is None or not self._keeper.is_alive:
            self._end_keeper()
            self._keeper = _Keeper(self._packages, self._preload, self._through)
        return self._keeper

    def _end_keeper(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.close()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run(
    code: str,
    *,
    inputs: Mapping[str, Any] | None = None,
    functions: Functions | None = None,
    limits: Limits | None = None,
    packages: Sequence[str] = (),
) -> Outcome:
    """One program in a sandbox of its own. For many, keep a Sandbox: each then takes a few milliseconds."""
    with Sandbox(packages=packages) as sandbox:
        return sandbox.run(code, inputs=inputs, functions=functions, limits=limits)


@dataclass(frozen=True)
class _Ends:
    """Our ends of what a worker and its monitor are given."""

    channel: socket.socket
    out: int
    err: int
    monitor: socket.socket


class Session:
    """Programs in one process, one after the other. After a failure from outside (time, crash, end) it is over."""

    def __init__(self, limits: Limits, ends: _Ends):
        self._limits, self._ends = limits, ends
        self._until = time.monotonic() + limits.lifetime_seconds
        self._number = 0
        self._over: Failure | None = None
        self._closed = False
        self._ended: dict[str, Any] = {}
        self._buffer = bytearray()
        self.cpu_seconds: float | None = None  # known once it is closed
        self.peak_memory_bytes: int | None = None

    def run(self, code: str, *, inputs: Mapping[str, Any] | None = None, functions: Functions | None = None) -> Outcome:
        """`functions` stay known to later programs but can be called only in the call that gives them."""
        names = list(functions or ())
        for name in [*names, *(inputs or {})]:
            if not name.isidentifier():
                raise UsageError(f"`{name}` cannot be the name of a variable.", fix="Use letters, digits and `_`.")
        return self._exchange({"code": code, "inputs": dict(inputs or {}), "functions": names}, functions or {})

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Outcome:
        """A function that an earlier program defined."""
        return self._exchange({"call": name, "args": list(args), "kwargs": kwargs}, {})

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        ended = self._end()
        self.cpu_seconds, self.peak_memory_bytes = ended.get("cpu_seconds"), ended.get("peak_memory_bytes")
        self._ends.channel.close()
        self._ends.monitor.close()
        for descriptor in (self._ends.out, self._ends.err):
            os.close(descriptor)
        self._over = self._over or Failure(ENDED, message="the session was closed")

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside -----------------------------------------------------------------------------------------------------------

    def _exchange(self, request: dict[str, Any], functions: Functions) -> Outcome:
        self._number += 1
        started = time.monotonic()
        if self._over is not None:
            return Outcome(None, "", "", self._over, 0.0, False)
        try:
            data = values.dumps({**request, "id": self._number})
        except values.NotPlain as error:
            raise UsageError(f"An input is {error}.", fix="Give None, numbers, text, bytes, lists, tuples, sets and dicts.") from error
        streams = _Streams(self._ends.out, self._ends.err, self._limits.output_bytes)
        reply = self._replied(data, functions, min(started + self._limits.seconds, self._until), streams)
        failure, value = (reply, None) if isinstance(reply, Failure) else _read(reply)
        if isinstance(reply, Failure):
            self._over = reply
        streams.drain()
        out, err = streams.texts()
        return Outcome(value, out, err, failure, time.monotonic() - started, streams.is_cut)

    def _replied(self, data: bytes, functions: Functions, deadline: float, streams: "_Streams") -> dict[str, Any] | Failure:
        """What the worker answers; Failure when it cannot, and then it is ended."""
        message = data
        while True:
            try:
                self._send(message, deadline, streams)
                reply = values.loads(self._message(deadline, streams))
            except TimeoutError:
                self._end()
                return Failure(TIME, message=f"it ran for more than {self._limits.seconds:g} s")
            except (ConnectionError, EOFError):
                return self._how_it_ended()
            except values.NotPlain as error:
                self._end()
                return Failure(UNREADABLE, message=str(error))
            if not isinstance(reply, dict):
                self._end()
                return Failure(UNREADABLE, message="a result without its frame")
            if "function" not in reply:
                if reply.get("id") == self._number and ("value" in reply or "error" in reply):
                    return reply
                self._end()
                return Failure(UNREADABLE, message="a result without its frame")
            message = _answered(reply, functions)

    def _send(self, data: bytes, deadline: float, streams: "_Streams") -> None:
        left = memoryview(framed(data))
        while left:
            self._wait(select.POLLOUT, deadline, streams)
            with contextlib.suppress(BlockingIOError):
                left = left[self._ends.channel.send(left, socket.MSG_NOSIGNAL) :]

    def _message(self, deadline: float, streams: "_Streams") -> bytes:
        buffer = self._buffer
        while True:
            if len(buffer) >= HEADER_BYTES:
                end = HEADER_BYTES + length_of(bytes(buffer[:HEADER_BYTES]))
                if end > HEADER_BYTES + self._limits.result_bytes:
                    raise values.NotPlain(f"a result of {end - HEADER_BYTES} bytes, of {self._limits.result_bytes} at most")
                if len(buffer) >= end:
                    message = bytes(buffer[HEADER_BYTES:end])
                    del buffer[:end]
                    return message
            self._wait(select.POLLIN, deadline, streams)
            with contextlib.suppress(BlockingIOError):
                part = self._ends.channel.recv(1 << 16)
                if not part:
                    raise EOFError
                buffer += part

    def _wait(self, event: int, deadline: float, streams: "_Streams") -> None:
        """Until the channel is ready; output is taken meanwhile, so that nobody waits for us to read it."""
        poll = select.poll()
        poll.register(self._ends.channel, event)
        for descriptor in streams.open:
            poll.register(descriptor, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            ready = dict(poll.poll(left * 1000))
            for descriptor in list(streams.open):
                if descriptor in ready and not streams.take(descriptor):
                    poll.unregister(descriptor)
            if self._ends.channel.fileno() in ready:
                return

    def _end(self) -> dict[str, Any]:
        """Kill it. What its monitor says; {} when there is none any more."""
        monitor = self._ends.monitor
        monitor.settimeout(_GRACE_SECONDS)
        with contextlib.suppress(OSError):
            monitor.shutdown(socket.SHUT_WR)  # a message that it left unread would reset what it answers
        try:
            said = json.loads(monitor.recv(1 << 12) or b"{}")
        except (OSError, ValueError):
            said = {}
        self._ended = self._ended or said  # it says so once
        return self._ended

    def _how_it_ended(self) -> Failure:
        ended = self._end()
        if not ended:
            raise MygptError("The sandbox was ended from outside while a program ran.", fix="Run it again; the program is not to blame.")
        number = ended.get("signal", 0)
        if number == signal.SIGKILL and (ended.get("cpu_seconds") or 0) >= self._cpu_seconds - 0.5:
            return Failure(TIME, message=f"it computed for more than {self._cpu_seconds} s")
        if number and number != signal.SIGKILL:
            return Failure(CRASHED, message=f"ended by {signal.Signals(number).name}")
        return Failure(ENDED, message=f"it left without a result (exit code {ended.get('exit_code', 0)})")

    @property
    def _cpu_seconds(self) -> int:
        return cpu_seconds(self._limits)


def cpu_seconds(limits: Limits) -> int:
    """Of a whole process: a session may use all of its life."""
    return int(min(limits.lifetime_seconds, _MOST_CPU_SECONDS)) + 1


class _Streams:
    """Standard output and error of a program, up to so many bytes of each."""

    def __init__(self, out: int, err: int, most_bytes: int):
        self._kept: dict[int, bytearray] = {out: bytearray(), err: bytearray()}
        self._most_bytes = most_bytes
        self.open = [out, err]
        self.is_cut = False

    def take(self, descriptor: int) -> bool:
        """What is there now. False once the other end is closed."""
        try:
            part = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return True
        kept = self._kept[descriptor]
        room = self._most_bytes - len(kept)
        self.is_cut |= len(part) > room
        kept += part[: max(0, room)]
        if not part:
            self.open.remove(descriptor)
        return bool(part)

    def drain(self) -> None:
        """What lies in the pipes, without waiting: a program has written all it will."""
        for descriptor in list(self.open):
            for _ in range(1 << 10):  # a pipe holds less than so many reads
                if not _is_ready(descriptor, 0) or not self.take(descriptor):
                    break

    def texts(self) -> tuple[str, str]:
        """Readable anywhere: bytes that are no UTF-8 and characters that steer a terminal are replaced by visible ones."""
        out, err = (bytes(kept).decode("utf-8", "replace").replace("\r\n", "\n").translate(_SHOWN_CONTROLS) for kept in self._kept.values())
        return out, err


def _read(reply: Mapping[str, Any]) -> tuple[Failure | None, Any]:
    error = reply.get("error")
    if error is None:
        return None, reply.get("value")
    error = error if isinstance(error, dict) else {}
    words = [error.get(name) for name in ("type", "message")]  # nothing of it has to be what our own worker writes
    kind, message = (w[:_SHOWN_CHARACTERS].translate(_SHOWN_CONTROLS) if isinstance(w, str) else "" for w in words)
    line = error.get("line")
    is_line = type(line) is int and 0 < line < 10**7
    return Failure(RAISED, kind or "Exception", message, line if is_line else None), None


def _answered(asked: Mapping[str, Any], functions: Functions) -> bytes:
    """The reply to a program that called one of our functions: its value, or the error it raised, as text."""
    try:
        function = functions[asked["function"]]
        return values.dumps({"value": function(*asked["args"], **asked["kwargs"])})
    except Exception as error:
        is_unknown = isinstance(error, KeyError) and asked.get("function") not in functions
        what = _text_of(error)[:_SHOWN_CHARACTERS]
        return values.dumps({"error": {"type": type(error).__name__, "message": f"no function {what!r}" if is_unknown else what}})


def _text_of(error: Exception) -> str:
    try:
        return str(error.args[0]) if len(error.args) == 1 else str(error)  # a KeyError's own text is quoted
    except Exception:  # of a number with more digits than Python writes, say
        return "(its message cannot be had)"


def _is_ready(descriptor: int, seconds: float) -> bool:
    poll = select.poll()  # `select` knows no descriptor above 1,023
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


# -- the keeper, seen from here -------------------------------------------------------------------------------------------


class _Keeper:
    def __init__(self, packages: Mapping[str, str], preload: Sequence[str], through: Wrapper | None):
        if not sys.platform.startswith("linux"):
            raise Refused(
                f"Code that a model wrote is run only in isolation, and that is built on Linux; this is {sys.platform}.",
                fix="Run mygpt on Linux, or in a Linux virtual machine.",
            )
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        settings = {
            "library": os.path.dirname(os.path.realpath(os.__file__)),
            "packages": dict(packages),
            "preload": list(preload),
            "landlock": True,
        }
        source = str(Path(mygpt.__file__).resolve().parents[1])
        python = os.path.realpath(sys.executable)
        command = [python, "-S", "-s", "-P", "-X", "utf8", "-c", _BOOT, source, str(theirs.fileno()), json.dumps(settings)]
        self._process = subprocess.Popen(
            through(command) if through else command,
            pass_fds=[theirs.fileno()],
            env={"PYTHONHASHSEED": "0"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        theirs.close()
        self._control.settimeout(_GRACE_SECONDS * 6)
        try:
            said = json.loads(self._control.recv(1 << 16) or b"{}")
        except OSError as error:
            said = {"message": str(error)}
        if not said.get("ready"):
            raise self._refusal(said)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, limits: Limits) -> _Ends:
        """A fresh worker with its monitor."""
        channel, worker_channel = socket.socketpair()
        monitor, monitor_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        (out, worker_out), (err, worker_err) = os.pipe(), os.pipe()
        asked = {**vars(limits), "cpu_seconds": cpu_seconds(limits), "stack_bytes": _STACK_BYTES}
        handed = [worker_channel.fileno(), worker_out, worker_err, monitor_end.fileno()]
        try:
            socket.send_fds(self._control, [json.dumps(asked).encode()], handed)
        except OSError:
            channel.close()
            monitor.close()
            os.close(out)
            os.close(err)
            raise
        finally:
            worker_channel.close()
            monitor_end.close()
            os.close(worker_out)
            os.close(worker_err)
        channel.setblocking(False)
        for descriptor in (out, err):
            os.set_blocking(descriptor, False)
        return _Ends(channel, out, err, monitor)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # even where a forked process holds the socket too
        self._control.close()  # the keeper ends when it reads this, and with it all it forked
        if self.is_alive:
            ended = os.pidfd_open(self._process.pid)  # `wait` with a time limit sleeps and looks again
            if not _is_ready(ended, _GRACE_SECONDS):
                self._process.kill()
            os.close(ended)
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _refusal(self, said: Mapping[str, Any]) -> MygptError:
        self._control.close()
        self._process.kill()
        _, errors = self._process.communicate()
        if "missing" not in said:
            last = (errors or b"").decode("utf-8", "replace").strip().splitlines()
            what = last[-1] if last else said.get("message", "it ended at once")
            return Refused(f"The sandbox did not start: {what}", fix="Nothing was run. Please report this with the line above.")
        from mygpt.guard.isolation_missing import why_not

        what, fix = why_not(str(said["missing"]), int(said["errno"]), str(said["call"]), str(said["message"]))
        return Refused(what, fix=fix)


def package_paths(names: Sequence[str]) -> dict[str, str]:
    """Files and folders of packages, by the name each is to have. Raises UsageError for one that is not allowed or not installed."""
    found: dict[str, str] = {}
    for name in names:
        if name not in PACKAGES:
            fix = f"Allowed: {', '.join(PACKAGES)}."
            raise UsageError(f"Programs in the sandbox may not import `{name}`.", fix=fix)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise UsageError(f"The package `{name}` is not installed here.", fix=f"Install it (`pip install {name}`) or leave it out.")
        where = Path(spec.origin).parent.parent if spec.submodule_search_locations else Path(spec.origin).parent
        for part in (name, *PACKAGES[name]):
            if (where / part).exists():
                found[part] = str(where / part)
    return found


@contextlib.contextmanager
def one_or(sandbox: Sandbox | None, **settings: Any) -> Iterator[Sandbox]:
    """The sandbox that was handed in, or one for the time of the block."""
    if sandbox is not None:
        yield sandbox
        return
    with Sandbox(**settings) as own:
        yield own
