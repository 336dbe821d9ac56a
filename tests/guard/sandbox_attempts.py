# ruff: noqa: E501 - one attempt a line
"""Programs that try to get out of the sandbox. `@...@` are things of the world outside, filled in by the test: none may be reached.

Each is a program and what it must come to: "refused" (it raised an error of the kind named), "time", "crashed", "ended", or a value.
"""

from dataclasses import dataclass
from typing import Any

_LIBC = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\ndef call(*a):\n    r = libc.syscall(*a)\n    return (r, ctypes.get_errno())\n"
EPERM, ENOSYS = 1, 38


@dataclass(frozen=True)
class Attempt:
    name: str
    code: str
    ends: str = ""  # class of an exception, or a kind of failure; "" for a value
    value: Any = None
    seconds: float = 30.0


def _system_call(name: str, *arguments: object, number: int, errno: int = EPERM) -> Attempt:
    listed = ", ".join(map(str, (number, *arguments)))
    return Attempt(name, f"{_LIBC}call({listed})", value=(-1, errno))


ATTEMPTS = (
    # files outside
    Attempt("read a secret of the home folder", "open(@secret@).read()", "FileNotFoundError"),
    Attempt("read it by climbing", "open('../' * 40 + @secret@.lstrip('/')).read()", "FileNotFoundError"),
    Attempt("read /etc/passwd", "open('/etc/passwd').read()", "FileNotFoundError"),
    Attempt("read /root", "import os\nos.listdir('/root/.ssh')", "FileNotFoundError"),
    Attempt("list what is there", "import os\nsorted(set(os.listdir('/')) - {'lib', 'lib32', 'lib64', 'usr', 'dev', 'tmp', 'packages'} - set(@library@.split('/')))", value=[]),
    Attempt("a symbolic link to the secret", "import os\nos.symlink(@secret@, 'x')\nopen('x').read()", "FileNotFoundError"),
    Attempt("a symbolic link out of /tmp", "import os\nos.symlink('/usr/lib', 'x')\nopen('x/planted', 'w')", "raised"),
    Attempt("a hard link to a library", "import os\nos.link(os.__file__, '/tmp/x')", "raised"),
    Attempt("write into Python's library", "import os\nopen(os.path.dirname(os.__file__) + '/planted.py', 'w')", "raised"),
    Attempt("write a .pth file", "import os\nopen(os.path.dirname(os.__file__) + '/site-packages/planted.pth', 'w')", "raised"),
    Attempt("write beside the secret", "open(@secret@ + '.planted', 'w')", "raised"),
    Attempt("write to the root", "open('/planted', 'w')", "raised"),
    Attempt("make a library writable", "import os\nos.chmod(os.__file__, 0o777)", "raised"),
    Attempt("run a file of /tmp", "import os\nopen('x', 'w').write('#!/bin/sh\\ntouch @marker@')\nos.chmod('x', 0o755)\nos.execv('/tmp/x', ['x'])", "PermissionError"),
    Attempt("/proc of itself", "open('/proc/self/environ').read()", "FileNotFoundError"),
    Attempt("/proc of another", "open('/proc/@victim@/environ').read()", "FileNotFoundError"),
    Attempt("/proc of process 1", "open('/proc/1/mem').read()", "FileNotFoundError"),
    Attempt("the root through /proc", "open('/proc/self/root' + @secret@).read()", "FileNotFoundError"),
    Attempt("/sys", "import os\nos.listdir('/sys')", "FileNotFoundError"),
    Attempt("/dev/shm", "open('/dev/shm/planted', 'w')", "raised"),
    Attempt("memory as a device file", "open('/dev/mem', 'rb')", "FileNotFoundError"),
    Attempt("the disk as a device file", "open('/dev/vda', 'rb')", "FileNotFoundError"),
    Attempt("make a device file", "import os, stat\nos.mknod('/tmp/mem', 0o666 | stat.S_IFCHR, os.makedev(1, 1))", "PermissionError"),
    Attempt("make a named pipe", "import os\nos.mkfifo('/tmp/x')", "PermissionError"),
    Attempt("lock a file for others", "import fcntl, os\nfcntl.flock(open(os.__file__), fcntl.LOCK_EX)", "PermissionError"),
    Attempt("lease a file", "import fcntl, os\nfcntl.fcntl(open(os.__file__), 1024, 0)", "PermissionError"),
    # the network
    Attempt("TCP to this machine", "import socket\nsocket.create_connection(('127.0.0.1', @port@), 1)", "raised"),
    Attempt("UDP to this machine", "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', @port@))", "PermissionError"),
    Attempt("a name look-up", "import socket\nsocket.getaddrinfo('example.org', 80)", "raised"),
    Attempt("a raw socket", "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "PermissionError"),
    Attempt("a socket in the file system", "import socket\nsocket.socket(socket.AF_UNIX).connect(@unix@)", "PermissionError"),
    Attempt("an abstract socket", "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0' + @abstract@)", "PermissionError"),
    Attempt("listen", "import socket\nsocket.create_server(('127.0.0.1', 0))", "PermissionError"),
    Attempt("a pair of sockets", "import socket\nsocket.socketpair()", "PermissionError"),
    Attempt("a connection on the result channel", f"{_LIBC}call(42, 3, 0, 0)", value=(-1, EPERM)),
    # what was inherited
    Attempt("the environment", "import os\nsorted(os.environ)", value=["HOME", "LANG", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED", "TMPDIR"]),
    Attempt("open descriptors", "import os\nfound = []\nfor n in range(1024):\n    try:\n        os.fstat(n)\n        found.append(n)\n    except OSError:\n        pass\nfound", value=[0, 1, 2, 3]),
    Attempt("standard input", "import sys\nsys.stdin.read()", value=""),
    Attempt("arguments", "import sys\n(sys.argv, sys.orig_argv)", value=([""], [""])),
    Attempt("the host's name", "import os\nos.uname().nodename", value="sandbox"),
    # processes
    Attempt("fork", "import os\nos.fork()", "PermissionError"),
    Attempt("a fork bomb", "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass", "time", seconds=0.5),
    Attempt("threads", "import threading\nthreading.Thread(target=print).start()", "RuntimeError"),
    Attempt("a shell", "import os\nos.system('touch @marker@')", value=127 << 8),
    Attempt("a subprocess", "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'touch @marker@'])", "raised"),
    Attempt("posix_spawn", "import os\nos.posix_spawn('/bin/sh', ['sh', '-c', 'touch @marker@'], {})", "raised"),
    Attempt("exec", "import os\nos.execv('/bin/sh', ['sh', '-c', 'touch @marker@'])", "raised"),
    Attempt("multiprocessing", "import multiprocessing\nmultiprocessing.Process(target=print).start()", "raised"),
    Attempt("kill the parent", "import os\nos.kill(os.getppid(), 9)\nos.kill(1, 9)\n'alive'", value="alive"),
    Attempt("kill everybody", "import os\ntry:\n    os.kill(-1, 9)\nexcept ProcessLookupError:\n    pass\n'tried'", value="tried"),
    Attempt("kill the process group", "import os\nos.kill(0, 15)\nos.killpg(0, 15)\n'tried'", value="tried"),
    Attempt("kill another by number", "import os\nos.kill(@victim@, 9)", "ProcessLookupError"),
    Attempt("stop the keeper", "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\n'tried'", value="tried"),
    _system_call("ptrace", 16, "@victim@", 0, 0, number=101),
    _system_call("another's memory", "@victim@", 0, 0, 0, 0, 0, number=310),
    _system_call("a descriptor for another process", "@victim@", 0, number=434),
    _system_call("a descriptor of another process", 3, 0, 0, number=438),
    # the kernel
    _system_call("a keyring", 0, -3, 0, 0, 0, number=250),
    _system_call("add a key", "b'user'", "b'a'", "b'b'", 1, -3, number=248),
    _system_call("mount", "b'none'", "b'/tmp'", "b'tmpfs'", 0, 0, number=165),
    _system_call("unmount", "b'/tmp'", 2, number=166),
    _system_call("a new mount through a descriptor", "b'tmpfs'", 0, number=430),
    _system_call("unshare again", 0x10000000, number=272),
    _system_call("another namespace", 3, 0, number=308),
    _system_call("chroot", "b'/tmp'", number=161),
    _system_call("pivot the root", "b'.'", "b'.'", number=155),
    _system_call("a clone with namespaces", 0x10000011, 0, 0, 0, 0, number=56),
    _system_call("the newer clone", 0, 0, number=435, errno=ENOSYS),
    _system_call("set the user", 0, number=105),
    _system_call("set the group", 0, number=106),
    _system_call("capabilities", 0, 0, number=126),
    _system_call("change of process settings", 1, 0, number=157),
    _system_call("BPF", 0, 0, 0, number=321),
    _system_call("io_uring", 1, 0, number=425),
    _system_call("user faults", 0, number=323),
    _system_call("performance counters", 0, 0, -1, -1, 0, number=298),
    _system_call("a file in memory", "b'x'", 0, number=319),
    _system_call("a file by handle", 3, 0, 0, number=304),
    _system_call("kernel modules", 0, 0, 0, number=313),
    _system_call("the clock", 0, 0, number=227),
    _system_call("the host's name, changed", "b'x'", 1, number=170),
    _system_call("shared memory", 1, 4096, 0o1666, number=29),
    _system_call("message queues", 1, 0o1666, number=68),
    _system_call("personality", 0x0040000, number=135),
    _system_call("the machine's reboot", 0xFEE1DEAD, 672274793, 0, 0, number=169),
    _system_call("execveat", 3, "b''", 0, 0, 0x1000, number=322),
    Attempt("x32 system calls", f"{_LIBC}call(0x40000000 + 39)", "crashed"),
    Attempt(
        "32-bit system calls",  # mov eax, 20 (getpid); int 0x80; ret
        "import ctypes, mmap\ncode = mmap.mmap(-1, 4096, prot=7)\ncode.write(bytes.fromhex('b814000000cd80c3'))\n"
        "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()",
        "crashed",
    ),
    Attempt("raise the limits", "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "raised"),
    Attempt("a terminal's input", "import fcntl\nfcntl.ioctl(0, 0x5412, b'x')", "PermissionError"),
    # resources
    Attempt("a list without end", "x = []\nwhile True:\n    x.append(bytearray(1 << 20))", "MemoryError"),
    Attempt("a mapping without end", "import mmap\nkept = []\nwhile True:\n    kept.append(mmap.mmap(-1, 1 << 26))", "raised"),
    Attempt("a string of ten gigabytes", "'a' * 10**10", "MemoryError"),
    Attempt("a power without end", "9 ** 9 ** 9", "time", seconds=1.0),
    Attempt("files without end", "n = 0\nwhile True:\n    open(f'x{n}', 'wb').write(bytes(1 << 20))\n    n += 1", "OSError"),
    Attempt("a file without end", "f = open('x', 'wb')\nwhile True:\n    f.write(bytes(1 << 20))", "OSError"),
    Attempt("names without end", "n = 0\nwhile True:\n    open(f'x{n}', 'w').close()\n    n += 1", "OSError"),
    Attempt("output without end", "while True:\n    print('x' * 10_000)", "time", seconds=0.5),
    Attempt("errors without end", "import sys\nwhile True:\n    sys.stderr.write('x' * 10_000)", "time", seconds=0.5),
    Attempt("descriptors without end", "import os\nwhile True:\n    os.dup(1)", "OSError"),
    Attempt("pipes without end", "import os\nwhile True:\n    os.pipe()", "OSError"),
    Attempt("a loop without end", "while True:\n    pass", "time", seconds=0.3),
    Attempt("sleep", "import time\ntime.sleep(1000)", "time", seconds=0.3),
    Attempt("sleep until a signal", "import signal\nsignal.pause()", "time", seconds=0.3),
    Attempt(
        "signals that are ignored",
        "import signal\nfor s in set(signal.Signals) - {9, 19}:\n    signal.signal(s, signal.SIG_IGN)\nwhile True:\n    pass",
        "time",
        seconds=0.3,
    ),
    Attempt("exceptions that are ignored", "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass", "time", seconds=0.3),
    Attempt("stop oneself", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nwhile True:\n    pass", "time", seconds=0.3),
    Attempt("recursion without end", "import sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6):\n    x = [x]\nrepr(x)", "crashed"),
    Attempt("a parser's depth", "eval('(' * 10_000 + ')' * 10_000)", "raised"),
    Attempt("a regular expression without end", "import re\nre.match('(a+)+$', 'a' * 40 + 'b')", "time", seconds=0.5),
    # the result
    Attempt("no result: exit code 0", "import os\nos._exit(0)", "ended"),
    Attempt("no result: sys.exit", "import sys\nsys.exit(0)", "SystemExit"),
    Attempt("no result: abort", "import os\nos.abort()", "crashed"),
    Attempt("no result: the channel closed", "import os\nos.close(3)\nwhile True:\n    pass", "ended"),
    Attempt("a result by hand, of another call", "import os, struct\nm = b'{\"id\":7,\"value\":\"forged\"}'\nos.write(3, struct.pack('>I', len(m)) + m)\nwhile True:\n    pass", "unreadable"),
    Attempt("a result that is no JSON", "import os, struct\nos.write(3, struct.pack('>I', 3) + b'}{]')\nwhile True:\n    pass", "unreadable"),
    Attempt("a result that is deep", "import os, struct\nm = b'[' * 100_000\nos.write(3, struct.pack('>I', len(m)) + m)\nwhile True:\n    pass", "unreadable"),
    Attempt("a result of four gigabytes", "import os\nos.write(3, b'\\xff' * 100)\nwhile True:\n    pass", "unreadable"),
    Attempt(
        "a result whose hashes collide",
        "import json, os, struct\nkeys = [k * (2**61 - 1) for k in range(1, 18_000)]\n"
        "of = [{'$': 'int', 'of': hex(k)} for k in keys]\n"
        "m = json.dumps({'id': 1, 'value': {'$': 'set', 'of': of}}, separators=(',', ':')).encode()\n"
        "os.write(3, struct.pack('>I', len(m)) + m)\nwhile True:\n    pass",
        "unreadable",
    ),
    Attempt(
        "an exception's class as a number of many digits",
        "import json, os, struct\nm = json.dumps({'id': 1, 'error': {'type': {'$': 'int', 'of': '0x' + 'f' * 5000}, 'message': [], 'line': 10**9}}).encode()\n"
        "os.write(3, struct.pack('>I', len(m)) + m)\nwhile True:\n    pass",
        "raised",
    ),
    Attempt("a line of many digits", "e = SyntaxError('x')\ne.lineno = 10 ** 5_000\nraise e", "SyntaxError"),
    Attempt("signals that wait without end", "import os, signal\nsignal.pthread_sigmask(0, [40])\nfor _ in range(10_000):\n    os.kill(1, 40)", value=None),
    Attempt("half a result", "import os\nos.write(3, b'\\0\\0\\1\\0half')\nos._exit(0)", "ended"),
    Attempt("the monitor's words on standard output", 'print(\'{"signal": 0, "exit_code": 0, "cpu_seconds": 0}\')\nimport os\nos._exit(9)', "ended"),
    Attempt("a function that was not handed in", "import os, struct\nm = b'{\"function\":\"open\",\"args\":[\"/etc/passwd\"],\"kwargs\":{}}'\nos.write(3, struct.pack('>I', len(m)) + m)\nlen(os.read(3, 1000)) < 200", value=True),
    Attempt("a result that unpickles", "class A:\n    def __reduce__(self):\n        import os\n        return (os.system, ('touch @marker@',))\nA()", "ResultNotPlain"),
    Attempt("a result that pretends to be a dict", "class A(dict):\n    __class__ = dict\n    def items(self):\n        while True:\n            yield ('a', 1)\nA(x=1)", value={"x": 1}),
    Attempt("a result that is too large", "'x' * 2_000_000", "ResultTooLarge"),
    Attempt("a result nested in itself", "x = []\nx.append(x)\nx", "ResultNotPlain"),
    Attempt("an integer that takes long to read", "10 ** 300_000 > 0", value=True),
    Attempt("an exception that does not want to be read", "class E(Exception):\n    def __str__(self):\n        while True:\n            pass\nraise E", "time", seconds=0.5),
    Attempt("an exception that raises", "class E(Exception):\n    def __str__(self):\n        raise SystemExit\nraise E", "E"),
    # other ways into the interpreter
    Attempt("all classes", "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'Popen'][:1]", value=[]),
    Attempt(
        "the frames above",
        "import sys\nf = sys._getframe()\nwhile f:\n    for v in list(f.f_globals.values()):\n        if getattr(v, '__name__', '') == 'os':\n            v.execv('/bin/sh', ['sh'])\n    f = f.f_back",
        "PermissionError",
    ),
    Attempt("the harness rewritten", "import mygpt.guard.inside.worker as w, mygpt.guard.inside.values as v\nv.dumps = lambda x: b'{}'\n1", "unreadable"),
    Attempt("the filter taken off", f"{_LIBC}import ctypes\n(call(157, 22, 0, 0), call(317, 0, 0, 0))", value=((-1, EPERM), (-1, EPERM))),
    Attempt("a finaliser as a time bomb", "class B:\n    def __del__(self):\n        print('boom', flush=True)\n        open(@secret@ + '.planted', 'w')\nimport builtins\nbuiltins.bomb = B()\n1", value=1),
    Attempt("work at exit", "import atexit\natexit.register(lambda: print('boom', flush=True))\n1", value=1),
    # who reads it
    Attempt("a terminal's title", "print('\\x1b]0;owned\\x07\\x1b[2J')\n1", value=1),
    Attempt("a terminal by an exception", "class E(Exception):\n    pass\nE.__name__ = '\\x1b[31m'\nraise E('\\x9b31m\\x1b[8m')", "raised"),
    Attempt("half a character", "'\\ud800'", value="�"),
    Attempt("bytes that are no text", "import os\nos.write(1, b'\\xff\\xfe\\x00\\x1b[31m')\n1", value=1),
)  # fmt: skip
