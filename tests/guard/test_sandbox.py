"""The sandbox as its users meet it: values, errors, limits, sessions, packages; what it leaves behind; and when it refuses."""

import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mygpt.core.errors import MygptError, UsageError
from mygpt.guard.bubblewrap import bubblewrap
from mygpt.guard.sandbox import PACKAGES, Limits, Sandbox, package_paths, run

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(packages=("numpy",)) as one:
        yield one


def test_one_program_start_to_end() -> None:
    outcome = run("print('hello')\nx * 2 + 1", inputs={"x": 20})
    assert (outcome.value, outcome.stdout, outcome.stderr, outcome.failure) == (41, "hello\n", "", None)
    assert outcome.ok
    assert outcome.cpu_seconds is not None and 0 < outcome.cpu_seconds < 1
    assert outcome.peak_memory_bytes is not None and 2**20 < outcome.peak_memory_bytes < 2**28


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("x = 1", None),  # no expression at the end
        ("1; 2", 2),
        ("def f():\n    return 3\nf()", 3),
        ("", None),
        ("# nothing\n", None),
        ("(1, {2, 3}, b'4', 5j, float('inf'), {6: None}, 10**40)", (1, {2, 3}, b"4", 5j, float("inf"), {6: None}, 10**40)),
        ("import json, re, decimal, datetime, itertools, collections, statistics, fractions\nstatistics.mean([1, 2, 6])", 3),
        ("open('note', 'w').write('kept')\nopen('/tmp/note').read()", "kept"),
        ("import tempfile\nwith tempfile.TemporaryFile() as f:\n    f.write(b'x')", None),
        ("import numpy as np\n(np.arange(4).reshape(2, 2) @ np.ones(2), np.float32(0.5), np.int64(3))", ([1.0, 5.0], 0.5, 3)),
        ("import numpy as np\nnp.linalg.solve(np.array([[2.0, 0.0], [0.0, 4.0]]), np.array([2.0, 2.0])).tolist()", [1.0, 0.5]),
    ],
)
def test_values(sandbox: Sandbox, code: str, value: Any) -> None:
    assert sandbox.run(code).value == value


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f(:", "SyntaxError: invalid syntax (<program>, line 1) (line 1)"),
        ("x = 1\nraise ValueError('no such thing')", "ValueError: no such thing (line 2)"),
        ("1 / 0", "ZeroDivisionError: division by zero (line 1)"),
        ("import torch", "ModuleNotFoundError: No module named 'torch' (line 1)"),
        ("undefined", "NameError: name 'undefined' is not defined (line 1)"),
        ("object()", "ResultNotPlain: a builtins.object, which is no plain value"),
        ("lambda: 1", "ResultNotPlain: a builtins.function, which is no plain value"),
        ("\0", "SyntaxError: source code string cannot contain null bytes"),
        ("'x' * 2_000_000", "ResultTooLarge: a result of 2000019 bytes, of 1048576 at most"),
    ],
)
def test_errors(sandbox: Sandbox, code: str, said: str) -> None:
    outcome = sandbox.run(code)
    assert outcome.failure is not None
    assert (outcome.failure.kind, str(outcome.failure)) == ("raised", said)
    assert outcome.value is None and not outcome.ok


def test_a_program_that_never_ends_is_ended(sandbox: Sandbox) -> None:
    started = time.monotonic()
    outcome = sandbox.run("print('begun', flush=True)\nwhile True: pass", limits=Limits(seconds=0.3))
    assert outcome.failure is not None
    assert (outcome.failure.kind, str(outcome.failure)) == ("time", "time: it ran for more than 0.3 s")
    assert outcome.stdout == "begun\n"
    assert 0.3 <= time.monotonic() - started < 1.3


def test_output_is_kept_up_to_its_limit(sandbox: Sandbox) -> None:
    """100 MB go through; the first 64 KiB stay, and it is said."""
    outcome = sandbox.run("for _ in range(100):\n    print('x' * 2**20, end='')\n7", limits=Limits(seconds=60))
    assert (outcome.value, outcome.stdout, outcome.is_cut) == (7, "x" * 65_536, True)
    assert sandbox.run("import sys\nprint('ä' * 10, file=sys.stderr)").stderr == "ä" * 10 + "\n"
    assert not sandbox.run("print('x' * 65_535)").is_cut


def test_limits(sandbox: Sandbox) -> None:
    assert sandbox.run("len(bytes(200 << 20))").value == 200 << 20
    small = sandbox.run("len(bytes(200 << 20))", limits=Limits(memory_bytes=128 << 20))
    assert small.failure is not None and small.failure.type == "MemoryError"
    assert sandbox.run("open('x', 'wb').write(bytes(1 << 20))", limits=Limits(disk_bytes=2 << 20)).value == 1 << 20
    full = sandbox.run("open('x', 'wb').write(bytes(3 << 20))", limits=Limits(disk_bytes=2 << 20))
    assert full.failure is not None and full.failure.type == "OSError"
    for wrong in ({"seconds": 0}, {"seconds": float("nan")}, {"seconds": float("inf")}, {"disk_bytes": 1.5e7}):
        with pytest.raises(UsageError, match=f"The limit `{next(iter(wrong))}` is"):
            Limits(**wrong)  # type: ignore[arg-type]
    assert sandbox.run("1", limits=Limits(lifetime_seconds=1e9)).value == 1


def test_processes_and_files_are_fresh_each_time(sandbox: Sandbox) -> None:
    sandbox.run("import builtins\nbuiltins.len = lambda x: 0\nopen('/tmp/left', 'w').write('x')\nleft = 1")
    assert sandbox.run("import os\n(len('abc'), os.listdir('/tmp'), 'left' in globals())").value == (3, [], False)


def test_the_same_program_gives_the_same_result() -> None:
    code = "list({'a', 'b', 'c', 'd', 'e', 'f'})"
    assert run(code).value == run(code).value


def test_sessions_keep_variables(sandbox: Sandbox) -> None:
    with sandbox.session() as session:
        assert session.run("total = 1\ndef add(n, twice=False):\n    global total\n    total += 2 * n if twice else n\n    return total").ok
        assert session.call("add", 4).value == 5
        assert session.call("add", 1, twice=True).value == 7
        assert session.run("print(total)\ntotal").stdout == "7\n"
        wrong = session.run("total / 0")
        assert wrong.failure is not None and wrong.failure.type == "ZeroDivisionError"
        assert session.run("total").value == 7  # an error leaves the session as it was
        missing = session.call("nothing")
        assert missing.failure is not None and str(missing.failure) == "NameError: name 'nothing' is not defined"
    assert session.cpu_seconds is not None and session.peak_memory_bytes is not None
    closed = session.run("total")
    assert closed.failure is not None and closed.failure.kind == "ended"


def test_what_a_session_used_is_always_known(sandbox: Sandbox) -> None:
    for _ in range(100):
        with sandbox.session() as session:
            session.run("1")
        assert session.cpu_seconds is not None


def test_a_session_is_over_after_its_time(sandbox: Sandbox) -> None:
    with sandbox.session(Limits(seconds=0.3)) as session:
        late = session.run("while True: pass")
        after = session.run("1")
    assert late.failure == after.failure and late.failure is not None and late.failure.kind == "time"


def test_functions_that_are_handed_in(sandbox: Sandbox) -> None:
    asked = []

    def price(name: str, count: int = 1) -> dict[str, Any]:
        asked.append((name, count))
        if name == "nothing":
            raise KeyError("no such thing")
        if name == "odd":
            return {"it": object()}
        return {"total": 3 * count}

    code = "try:\n    price('nothing')\nexcept KeyError as e:\n    caught = str(e)\n(price('tea', count=2)['total'], caught)"
    assert sandbox.run(code, functions={"price": price}).value == (6, "'no such thing'")
    assert asked == [("nothing", 1), ("tea", 2)]
    huge = sandbox.run("price(10**5000)", functions={"price": {"tea": 3}.__getitem__})
    assert huge.failure is not None and "(its message cannot be had)" in huge.failure.message
    odd = sandbox.run("price('odd')", functions={"price": price})
    assert odd.failure is not None and "a builtins.object, which is no plain value" in odd.failure.message
    assert sandbox.run("price(lambda: 1)", functions={"price": price}).failure is not None
    with sandbox.session() as session:
        session.run("1", functions={"price": price})
        gone = session.run("price('tea')")
    assert gone.failure is not None and "no function 'price'" in gone.failure.message


def test_a_stop_iteration_of_ours_does_not_end_their_loops(sandbox: Sandbox) -> None:
    def over() -> None:
        raise StopIteration

    outcome = sandbox.run("list(map(lambda _: over(), [1, 2]))", functions={"over": over})
    assert outcome.failure is not None and outcome.failure.type == "RuntimeError"


def test_what_cannot_go_in(sandbox: Sandbox) -> None:
    with pytest.raises(UsageError, match=r"An input is a builtins\.object"):
        sandbox.run("x", inputs={"x": object()})
    with pytest.raises(UsageError, match="`not a name` cannot be the name of a variable"):
        sandbox.run("x", inputs={"not a name": 1})


def test_packages_are_those_of_the_table() -> None:
    assert "numpy" in PACKAGES
    with pytest.raises(UsageError) as error:
        package_paths(["requests"])
    assert error.value.what == "Programs in the sandbox may not import `requests`."
    assert error.value.fix.startswith("Allowed: numpy, ")
    with Sandbox() as bare:
        without = bare.run("import numpy")
        assert without.failure is not None and without.failure.type == "ModuleNotFoundError"
        assert bare.identity == {"sandbox": "namespaces", "python": sys.version.split()[0], "packages": []}
    with Sandbox(packages=("numpy",), preload=("numpy",)) as warm:
        warm.run("1")
        assert warm.run("import sys\n'numpy' in sys.modules").value is True


def test_several_threads_share_one(sandbox: Sandbox) -> None:
    found: dict[int, Any] = {}

    def work(n: int) -> None:
        found[n] = [sandbox.run("import time\ntime.sleep(0.05)\nn", inputs={"n": n}).value for _ in range(3)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: [n] * 3 for n in range(6)}


def test_a_keeper_that_was_killed_is_replaced(sandbox: Sandbox) -> None:
    with Sandbox() as one:
        assert one.run("1").value == 1
        assert one._keeper is not None
        one._keeper._process.kill()
        one._keeper._process.wait()
        assert one.run("2").value == 2


def test_what_is_closed_stays_closed() -> None:
    one = Sandbox()
    one.run("1")
    one.close()
    one.close()
    with pytest.raises(UsageError, match="closed"):
        one.run("1")


def test_a_program_is_not_blamed_for_its_keeper() -> None:
    with Sandbox() as one, one.session() as session:
        assert session.run("1").value == 1
        assert one._keeper is not None
        one._keeper._process.kill()
        one._keeper._process.wait()
        with pytest.raises(MygptError, match="ended from outside"):
            for _ in range(500):  # the kernel ends monitor and worker in its own time
                session.run("1")
                time.sleep(0.01)


def test_many_descriptors_are_open_here(sandbox: Sandbox) -> None:
    """`select` would fail from 1,024 on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4_096, hard), hard))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1_200)]
    try:
        with Sandbox() as one:
            assert one.run("print('x')\n1").stdout == "x\n"
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_signals_that_wait_do_not_use_up_what_the_user_has(sandbox: Sandbox) -> None:
    with sandbox.session() as session:
        assert session.run("import os, signal\nsignal.pthread_sigmask(0, [40])\nfor _ in range(10_000):\n    os.kill(1, 40)").ok
        (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("SigQ:")]
        assert int(line.split()[1].split("/")[0]) < 1_000


def test_a_fork_of_ours_does_not_keep_it_alive() -> None:
    one = Sandbox()
    one.run("1")
    assert one._keeper is not None
    keeper = one._keeper._process.pid
    child = os.fork()
    if child == 0:
        time.sleep(20)
        os._exit(0)
    started = time.monotonic()
    one.close()
    assert time.monotonic() - started < 3
    assert not Path(f"/proc/{keeper}").exists()
    os.kill(child, 9)
    os.waitpid(child, 0)


def test_a_thousand_runs_leave_nothing_behind() -> None:
    def state() -> tuple[str, list[str], list[str]]:
        """A namespace lives as long as a process, a mount or a descriptor holds it: these three say it all."""
        return Path("/proc/self/mountinfo").read_text(), sorted(os.listdir("/proc/self/fd")), children()

    before = state()
    with Sandbox() as one:
        for n in range(1_000):
            assert one.run("open('/tmp/mygpt-test-x', 'w').write('x')\nn", inputs={"n": n}).value == n
    assert state() == before
    assert not Path("/tmp/mygpt-test-x").exists()


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_inside_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("bwrap"):
        with Sandbox(through=bubblewrap()) as one:
            assert one.run("6 * 7").value == 42
            escaped = one.run("import socket\nsocket.socket()")
            assert escaped.failure is not None and escaped.failure.type == "PermissionError"
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="not installed"):
        bubblewrap()


# -- systems that do not isolate ------------------------------------------------------------------------------------------

_TRY = """
import json, sys
from mygpt.core.errors import MygptError
from mygpt.guard.sandbox import run
try:
    print(json.dumps(["ran", run("6 * 7").value]))
except MygptError as error:
    print(json.dumps([type(error).__name__, error.what, error.fix]))
"""
_DENY = """
from mygpt.guard.inside.kernel import prctl, PR_SET_NO_NEW_PRIVS
from mygpt.guard.inside.seccomp import install
prctl(PR_SET_NO_NEW_PRIVS, 1)
install([(0x20, 0, 0, 0), (0x15, 0, 1, {number}), (0x06, 0, 0, 0x00050000 | {errno}), (0x06, 0, 0, 0x7FFF0000)])
"""


def _tried(*, before: str = "", command: tuple[str, ...] = (), python: str = sys.executable, user: int | None = None) -> list[Any]:
    import json

    made = subprocess.run(
        [*command, python, "-c", before + _TRY],
        env={"PYTHONPATH": str(REPOSITORY / "src"), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        user=user,
        group=user,
        extra_groups=[] if user else None,
        cwd="/",
    )
    assert made.returncode == 0, made.stderr
    found: list[Any] = json.loads(made.stdout)
    return found


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="system calls are denied by their numbers on x86_64")
@pytest.mark.parametrize(
    ("number", "errno", "what", "fix"),
    [
        (272, 1, "user namespaces for ordinary users (unshare: Operation not permitted)", "--security-opt seccomp=unconfined"),
        (165, 1, "mounts inside a user namespace (mount: Operation not permitted)", "--security-opt seccomp=unconfined"),
        (444, 38, "Landlock (Linux 5.13 or newer", "lsm=landlock"),
        (444, 95, "Landlock (Linux 5.13 or newer", "lsm=landlock"),
    ],
    ids=["a container without user namespaces", "a container without mounts", "an old kernel", "Landlock switched off"],
)
def test_what_is_missing_is_named_and_nothing_runs(number: int, errno: int, what: str, fix: str) -> None:
    kind, said, advice = _tried(before=_DENY.format(number=number, errno=errno))
    assert kind == "Refused"
    assert what in said and said.endswith("Nothing was run.")
    assert fix in advice


def test_a_system_without_user_namespaces() -> None:
    """The real switch, in a namespace of its own where it can be turned."""
    if not shutil.which("unshare"):
        pytest.skip("no `unshare` here")
    turned = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$0\" \"$@\""
    kind, said, advice = _tried(command=("unshare", "-Ur", "sh", "-c", turned))
    assert kind == "Refused" and "user namespaces for ordinary users" in said
    assert advice == "They are switched off (/proc/sys/user/max_user_namespaces is 0): `sudo sysctl user.max_user_namespaces=10000`."


def test_without_shared_memory() -> None:
    if not shutil.which("unshare"):
        pytest.skip("no `unshare` here")
    hidden = "mount -t tmpfs -o mode=000,ro none /dev/shm || umount -l /dev/shm; exec \"$0\" \"$@\""
    assert _tried(command=("unshare", "-Urm", "sh", "-c", hidden)) == ["ran", 42]


def test_as_an_ordinary_user() -> None:
    python = "/usr/bin/python3" if sys.executable.startswith(os.path.expanduser("~")) or os.geteuid() == 0 else sys.executable
    if os.geteuid() == 0:
        version = subprocess.run([python, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True, text=True).stdout
        if version.strip() != "True":
            pytest.skip("no Python 3.11 or newer that another user may run")
        assert _tried(python=python, user=65_534) == ["ran", 42]
    else:
        assert _tried() == ["ran", 42]


def test_another_system_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from mygpt.core.errors import Refused

    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(Refused, match="built on Linux; this is darwin"), Sandbox() as one:
        one.run("1")
