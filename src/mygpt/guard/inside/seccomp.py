"""Which system calls a program may make: those that Python and numpy need to compute and to use their own /tmp. All others fail.

A call that is not on the list returns EPERM, so that Python raises PermissionError and the program sees an ordinary error. A call by way
of another machine's conventions (32-bit, x32), which would have other numbers, ends the process.

Not on the list, among others: new processes and threads, executing files, sockets of every kind, namespaces and mounts, tracing and other
processes' memory, keyrings, BPF, io_uring, user fault handling, capabilities and identities, kernel modules, System V memory, file locks.

Source: seccomp(2); the classic BPF machine of McCanne and Jacobson 1993, as linux/filter.h has it; numbers: the kernel's own tables.
"""

import ctypes
import errno
import os
import struct

from mygpt.guard.inside.kernel import PR_SET_SECCOMP, SECCOMP_MODE_FILTER, prctl

# name: number on x86_64, number on aarch64 (None where the machine has no such call)
ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # files that are open, and /tmp
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "lseek": (8, 62),
    "open": (2, None),
    "openat": (257, 56),
    "close": (3, 57),
    "close_range": (436, 436),
    "stat": (4, None),
    "lstat": (6, None),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "truncate": (76, 45),
    "ftruncate": (77, 46),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "utimensat": (280, 88),
    "umask": (95, 166),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "pipe": (22, None),
    "pipe2": (293, 59),
    "sendfile": (40, 71),
    "copy_file_range": (326, 285),
    # waiting for them
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "eventfd2": (290, 19),
    # the result channel, which is open already: no new socket can be made
    "recvfrom": (45, 207),
    "sendto": (44, 206),
    # memory
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    # time and chance
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "getrandom": (318, 278),
    "alarm": (37, None),
    "setitimer": (38, 103),
    "getitimer": (36, 102),
    # oneself
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getpgrp": (111, None),
    "getpgid": (121, 155),
    "getsid": (124, 156),
    "getrlimit": (97, 163),
    "getrusage": (98, 165),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getcpu": (309, 168),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "arch_prctl": (158, None),
    "wait4": (61, 260),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "restart_syscall": (219, 128),
    # signals: there is no other process to send one to
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136),
    "rt_sigsuspend": (130, 133),
    "sigaltstack": (131, 132),
    "kill": (62, 129),
    "tgkill": (234, 131),
    "pause": (34, None),
}
IOCTL: tuple[int, int] = (16, 29)  # allowed for these requests only
_IOCTL_REQUESTS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # is it a terminal, its size; bytes to read; flags
FCNTL: tuple[int, int] = (72, 25)  # allowed for these commands only: locks and leases of files reach beyond the sandbox
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030, 1031, 1032)  # duplicate, descriptor flags, file flags, duplicate closed on exec, size of a pipe
PRLIMIT64: tuple[int, int] = (302, 261)  # allowed to read limits, not to set them
CLONE3: tuple[int, int] = (435, 435)  # "no such call", so that the C library tries clone, which is refused

_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*
_COLUMN = {"x86_64": 0, "aarch64": 1}
_X32 = 0x40000000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data; arguments of 8 bytes, low half first

Step = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def is_known(machine: str) -> bool:
    return machine in _COLUMN


def program(machine: str) -> list[Step]:
    """The filter. Jumps count from the next step."""
    column = _COLUMN[machine]
    steps: list[Step] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, _ARCHITECTURE[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == "x86_64":
        steps += [(_JUMP_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for numbers in ALLOWED.values():
        if (number := numbers[column]) is not None:
            steps += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    steps += [(_JUMP_EQUAL, 0, 1, CLONE3[column]), (_RETURN, 0, 0, _ERROR | errno.ENOSYS)]
    steps += _only_if(IOCTL[column], argument=1, values=_IOCTL_REQUESTS, halves=1)
    steps += _only_if(FCNTL[column], argument=1, values=_FCNTL_COMMANDS, halves=1)
    steps += _only_if(PRLIMIT64[column], argument=2, values=(0,), halves=2)
    return [*steps, (_RETURN, 0, 0, _ERROR | errno.EPERM)]


def _only_if(number: int, *, argument: int, values: tuple[int, ...], halves: int) -> list[Step]:
    """Allowed where the argument is one of `values`; `halves` of its two are looked at (an ioctl request has 32 bits)."""
    at = _ARGUMENTS_AT + 8 * argument
    body: list[Step] = []
    if halves == 2:
        body += [(_LOAD, 0, 0, at + 4), (_JUMP_EQUAL, 1, 0, 0), (_RETURN, 0, 0, _ERROR | errno.EPERM)]
    body += [(_LOAD, 0, 0, at)]
    for value in values:
        body += [(_JUMP_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    body += [(_RETURN, 0, 0, _ERROR | errno.EPERM)]
    return [(_JUMP_EQUAL, 0, len(body), number), *body]


def allow_only_computing() -> None:
    """From now on, for this process, until it ends. Needs `no new privileges` to be set."""
    install(program(os.uname().machine))


def install(steps: list[Step]) -> None:
    packed = b"".join(struct.pack("=HBBI", *step) for step in steps)
    code = ctypes.create_string_buffer(packed, len(packed))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))  # struct sock_fprog
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header)
