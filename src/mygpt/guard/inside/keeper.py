"""The process that keeps a sandbox warm: isolated once, it forks a fresh process for every program.

    sandbox (yours) ── control socket ──> keeper   own user, mount, network, IPC and host-name namespaces; the root of `root`
      └─ monitor   one for each program: own process and mount namespaces, an empty /tmp; kills at the end
           └─ worker   first and only process of its namespace: limits, Landlock, seccomp, then the program

The keeper never reads a program: it hands the sockets over that came with the request and forgets them. The worker reaches none of
the others: it sees no process but itself, and the kernel ends it when its monitor ends, the monitor when the keeper does, the keeper
when the control socket closes, which it does when its owner dies.

Source: namespaces(7), user_namespaces(7), pid_namespaces(7), unix(7) for descriptors sent over a socket.
"""

from __future__ import annotations

import _signal as signal
import _socket as socket
import contextlib
import importlib
import json
import os
import resource
import select
import sys
import time

from mygpt.guard.inside import kernel, landlock, seccomp
from mygpt.guard.inside.frames import receive_descriptors
from mygpt.guard.inside.root import OWN_DIRECTORY, PACKAGES, build_root
from mygpt.guard.inside.worker import work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any  # when types are checked only: it takes a tenth of the start-up

_INSIDE_ID, _INSIDE_NAME = 1000, "sandbox"
_MOST_SIGNALS = 64  # that wait: they count against the user outside
_OWN_FILES = 1_024  # in /tmp
_REQUEST_BYTES = 65_536
_LONGEST_POLL_MS = 2**31 - 1  # 24 days
_ASIDE = 100  # a descriptor's number that is free
_DESCRIPTORS = 4  # of a request: the worker's channel, its output, its errors, the monitor's channel
_ENVIRONMENT = {
    "HOME": OWN_DIRECTORY, "TMPDIR": OWN_DIRECTORY, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),  # there are no threads
}


class Missing(Exception):
    """A layer of isolation that this system does not give."""

    def __init__(self, layer: str, error: OSError):
        super().__init__(layer)
        self.layer, self.error = layer, error


def main(control: socket.socket, settings: dict[str, Any]) -> None:
    """`settings`: library (folder), packages (name: path), preload (modules), landlock (whether it is demanded)."""
    try:
        landlock_abi = isolate(settings)
    except Missing as missing:
        error = missing.error
        said = {"missing": missing.layer, "errno": error.errno, "call": error.filename or "", "message": error.strerror or str(error)}
        control.send(json.dumps(said).encode())
        return
    for module in settings["preload"]:
        with contextlib.suppress(ImportError):  # a program that imports it is told
            importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # monitors that end leave no zombies
    control.send(json.dumps({"ready": True, "landlock": landlock_abi}).encode())
    while True:
        message, descriptors = receive_descriptors(control, _REQUEST_BYTES, _DESCRIPTORS)
        if not message:
            os._exit(0)  # without tidying up an interpreter that nobody needs again
        if os.fork() == 0:
            control.close()
            _leave(monitor, json.loads(message), descriptors, landlock_abi)
        for descriptor in descriptors:
            os.close(descriptor)


def isolate(settings: dict[str, Any]) -> int:
    """Namespaces and the small root, for this process and all it forks. Returns Landlock's ABI, 0 where it was not demanded."""
    uid, gid = os.geteuid(), os.getegid()
    if not seccomp.is_known(os.uname().machine):
        raise Missing("machine", OSError(0, f"{os.uname().machine} is not one of those whose system calls are listed"))
    abi = 0
    if settings["landlock"]:
        with _layer("landlock"):
            abi = landlock.abi()
    with _layer("user namespace"):
        kernel.unshare(kernel.CLONE_NEWUSER)
    with _layer("user map"):
        for name, text in (("setgroups", "deny"), ("uid_map", f"{_INSIDE_ID} {uid} 1"), ("gid_map", f"{_INSIDE_ID} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    with _layer("namespaces"):
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)
    with _layer("host name"):
        kernel.set_host_name(_INSIDE_NAME)
    with _layer("mounts"):
        build_root(settings["library"], settings["packages"])
    os.environ.clear()
    os.environ.update(_ENVIRONMENT)
    sys.path[:] = [path for path in sys.path if path.startswith(settings["library"])] + [PACKAGES]
    sys.path_importer_cache.clear()
    sys.argv, sys.orig_argv = [""], [""]  # they name folders outside
    return abi


@contextlib.contextmanager
def _layer(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Missing(name, error) from error


def monitor(limits: dict[str, Any], descriptors: list[int], landlock_abi: int) -> None:
    """Start the worker and say how it ended. It is killed when the owner says so or is gone, or when its life is over."""
    channel, out, err, control = descriptors
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    kernel.unshare(kernel.CLONE_NEWPID | kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    options = f"size={limits['disk_bytes']},nr_inodes={_OWN_FILES},mode=700"
    kernel.mount("tmpfs", OWN_DIRECTORY, "tmpfs", flags, options)
    until = time.monotonic() + limits["lifetime_seconds"]
    pid = os.fork()
    if pid == 0:
        os.close(control)
        _leave(_worker, limits, channel, out, err, landlock_abi)
    for descriptor in (channel, out, err):
        os.close(descriptor)
    ended = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(ended, select.POLLIN)
    poll.poll(min(max(0.0, until - time.monotonic()) * 1000, _LONGEST_POLL_MS))
    os.kill(pid, signal.SIGKILL)  # whatever it was that happened: nothing of it runs on
    _, status, used = os.wait4(pid, 0)
    said = {
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "exit_code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_memory_bytes": used.ru_maxrss * 1024,
    }
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(control, json.dumps(said).encode())


def _worker(limits: dict[str, Any], channel: int, out: int, err: int, landlock_abi: int) -> None:
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getpid() != 1:
        raise AssertionError("the worker has no process namespace of its own")
    os.setsid()  # a signal to one's process group would pass the wall of the process namespace
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(channel, _ASIDE)
    for number, descriptor in enumerate((nothing, out, err)):
        os.dup2(descriptor, number)
    os.dup2(_ASIDE, 3)
    os.closerange(4, 1 << 16)
    for name in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(name, signal.SIG_DFL)
    os.chdir(OWN_DIRECTORY)
    for kind, most in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_FSIZE, limits["disk_bytes"]),
        (resource.RLIMIT_NOFILE, limits["descriptors"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, _MOST_SIGNALS),
        (resource.RLIMIT_STACK, limits["stack_bytes"]),
    ):
        resource.setrlimit(kind, (most, most))
    requests = socket.socket(fileno=3)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # a crash is not handed to a program of the system's
    kernel.give_up_privileges()
    if landlock_abi:
        landlock.restrict_files(landlock_abi, OWN_DIRECTORY)
    seccomp.allow_only_computing()
    work(requests, limits["result_bytes"])


def _leave(function: Callable[..., None], *arguments: Any) -> None:
    """Run it in this forked process and end there, whatever happens: a fork never comes back into the keeper's loop."""
    code = 70
    try:
        function(*arguments)
        code = 0
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(2, f"sandbox: {error!r} {getattr(error, 'filename', None)}\n".encode())
    finally:
        os._exit(code)
