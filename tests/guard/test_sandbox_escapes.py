"""Over a hundred ways out of the sandbox; after each, the world outside is as it was: looked at from outside, not asked of the program."""

import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mygpt.guard.sandbox import Limits, Outcome, Sandbox
from tests.guard.sandbox_attempts import ATTEMPTS, Attempt

SECRET = "the-launch-code-is-7413"
pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls are attempted by their numbers on x86_64")


@dataclass
class World:
    """What a program might reach, and how to see that it was not."""

    folder: Path
    victim: subprocess.Popen[bytes]
    server: socket.socket
    named: socket.socket
    abstract: socket.socket
    datagrams: socket.socket

    def __post_init__(self) -> None:
        self.secret = self.folder / "home" / "secret.txt"
        self.marker = self.folder / "planted"
        self.before = self.state()

    def filled(self, code: str) -> str:
        things = {
            "@secret@": repr(str(self.secret)),
            "@unix@": repr(self.named.getsockname()),
            "@abstract@": repr(self.abstract.getsockname().lstrip(b"\0").decode()),
            "@host@": repr(os.uname().nodename),
            "@library@": repr(os.path.realpath(os.__file__)),
            "@marker@": str(self.marker),
            "@victim@": str(self.victim.pid),
            "@port@": str(self.server.getsockname()[1]),
        }
        for name, thing in things.items():
            code = code.replace(name, thing)
        return code

    def state(self) -> dict[str, Any]:
        python_library = Path(os.__file__).parent
        return {
            "files": sorted(str(p) for p in self.folder.rglob("*")),
            "secret": self.secret.read_text(),
            "victim": self.victim.poll(),
            "mounts": Path("/proc/self/mountinfo").read_text(),
            "host": os.uname().nodename,
            "library": sorted(os.listdir(python_library)),
            "os.py": (python_library / "os.py").stat().st_mode,
            "shared memory": sorted(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else [],
            "connections": [_is_readable(s) for s in (self.server, self.named, self.abstract, self.datagrams)],
        }


def _is_readable(one: socket.socket) -> bool:
    import select

    return bool(select.select([one], [], [], 0)[0])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    (folder / "home").mkdir()
    (folder / "home" / "secret.txt").write_text(SECRET)
    os.environ["SANDBOX_TEST_SECRET"] = SECRET
    sleeping = "import time\nwhile True: time.sleep(1)"
    victim = subprocess.Popen([sys.executable, "-c", sleeping], env={**os.environ, "SECRET": SECRET})
    named, abstract = (socket.socket(socket.AF_UNIX) for _ in range(2))
    named.bind(str(folder / "s"))
    abstract.bind(f"\0mygpt-test-{os.getpid()}")
    server = socket.create_server(("127.0.0.1", 0))
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", server.getsockname()[1]))
    for one in (named, abstract):
        one.listen()
    yield World(folder, victim, server, named, abstract, datagrams)
    victim.kill()
    victim.wait()
    del os.environ["SANDBOX_TEST_SECRET"]
    for one in (server, named, abstract, datagrams):
        one.close()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as one:
        yield one


def test_there_are_forty_attempts_and_more() -> None:
    assert len({a.name for a in ATTEMPTS}) == len(ATTEMPTS) >= 40


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda a: a.name)
def test_contained(attempt: Attempt, world: World, sandbox: Sandbox) -> None:
    code = world.filled(attempt.code)
    limits = Limits(seconds=attempt.seconds)
    started = time.monotonic()
    outcome = sandbox.run(code, limits=limits)
    assert time.monotonic() - started < attempt.seconds + 3
    _has_its_end(attempt, outcome)
    said = f"{outcome.value!r} {outcome.stdout} {outcome.stderr} {outcome.failure}"
    assert SECRET not in said
    assert "boom" not in said
    shown = outcome.stdout + outcome.stderr + str(outcome.failure)
    assert not any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in shown)
    assert world.state() == world.before
    assert _descendants_but(sandbox) == []
    assert sandbox.run("6 * 7").value == 42  # the next program knows nothing of it


def _has_its_end(attempt: Attempt, outcome: Outcome) -> None:
    failure = outcome.failure
    if not attempt.ends:
        assert failure is None, failure
        assert outcome.value == attempt.value
    else:
        assert failure is not None, outcome
        assert attempt.ends in (failure.kind, failure.type) or issubclass(_builtin(failure.type), _builtin(attempt.ends)), failure


def _builtin(name: str) -> type:
    import builtins

    found = getattr(builtins, name, type(name, (), {}))
    return found if isinstance(found, type) else object


def _descendants_but(sandbox: Sandbox) -> list[str]:
    """Processes below the keeper, once its monitors have had a moment to end."""
    keeper = sandbox._keeper
    assert keeper is not None
    pid = keeper._process.pid
    for _ in range(100):
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if not found:
            return []
        time.sleep(0.01)
    return [Path(f"/proc/{one}/stat").read_text() for one in found]


def test_the_secrets_can_be_reached_from_here(world: World) -> None:
    """Without the sandbox the same attempts succeed: the suite would notice."""
    assert world.secret.read_text() == SECRET
    with socket.create_connection(world.server.getsockname()):
        assert _is_readable(world.server)
    world.server.accept()[0].close()
    assert f"SECRET={SECRET}" in Path(f"/proc/{world.victim.pid}/environ").read_text()


def test_it_ends_with_its_owner(tmp_path: Path) -> None:
    """The owner is killed, not asked: the loop inside ends, and so does the keeper."""
    owner = (
        "import os\nfrom mygpt.guard.sandbox import Sandbox, Limits\nsandbox = Sandbox()\nsandbox.run('1')\n"
        "print(sandbox._keeper._process.pid, flush=True)\nsandbox.run('while True: pass', limits=Limits(seconds=60))"
    )
    process = subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE)
    assert process.stdout is not None
    keeper = int(process.stdout.readline())
    for _ in range(200):
        monitors = _children(keeper)
        workers = [worker for monitor in monitors for worker in _children(monitor)]
        if workers:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    for pid in (keeper, *monitors, *workers):
        for _ in range(300):
            if not _runs(pid):
                break
            time.sleep(0.01)
        assert not _runs(pid)


def _children(pid: int) -> list[int]:
    """None of a process that has ended: the monitor of an earlier run may go while it is looked at."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
