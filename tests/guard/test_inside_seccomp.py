"""The list of system calls: its numbers against the kernel's own tables; what the filter says, step by step, on a small machine."""

import re
from pathlib import Path

import pytest

from mygpt.guard.inside import seccomp
from mygpt.guard.inside.seccomp import ALLOWED, CLONE3, FCNTL, IOCTL, PRLIMIT64, program

_TABLES = {"x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "/usr/include/asm-generic/unistd.h"}
_NAMES = {**ALLOWED, "ioctl": IOCTL, "fcntl": FCNTL, "prlimit64": PRLIMIT64, "clone3": CLONE3}
_GENERIC = {"fcntl": "__NR3264_fcntl", "statfs": "__NR3264_statfs", "fstatfs": "__NR3264_fstatfs", "truncate": "__NR3264_truncate"}
_GENERIC |= {"ftruncate": "__NR3264_ftruncate", "lseek": "__NR3264_lseek", "sendfile": "__NR3264_sendfile", "mmap": "__NR3264_mmap"}
_GENERIC |= {"newfstatat": "__NR3264_fstatat", "fstat": "__NR3264_fstat"}
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


@pytest.mark.parametrize("machine", _TABLES)
def test_numbers_are_the_kernels(machine: str) -> None:
    path = Path(_TABLES[machine])
    if not path.exists():
        pytest.skip(f"no {path} (package linux-libc-dev)")
    known = {name: int(number) for name, number in re.findall(r"#define (__NR\w+)\s+(\d+)", path.read_text())}
    column = ["x86_64", "aarch64"].index(machine)
    for name, numbers in _NAMES.items():
        wanted = known.get(f"__NR_{name}", known.get(_GENERIC.get(name, "") if machine == "aarch64" else ""))
        assert numbers[column] == wanted, name


def ran(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the filter returns for a call: the classic BPF machine, as far as the filter uses it."""
    data = {0: number, 4: AUDIT[machine] if architecture is None else architecture}
    for i, argument in enumerate(arguments):
        data |= {16 + 8 * i: argument & 0xFFFFFFFF, 20 + 8 * i: argument >> 32}
    steps, at, loaded = program(machine), 0, 0
    while True:
        code, if_true, if_false, operand = steps[at]
        at += 1
        if code == 0x20:
            loaded = data.get(operand, 0)
        elif code == 0x06:
            return operand
        else:
            assert code in (0x15, 0x35)
            at += if_true if (loaded == operand if code == 0x15 else loaded >= operand) else if_false


@pytest.mark.parametrize("machine", _TABLES)
def test_what_the_filter_says(machine: str) -> None:
    column = ["x86_64", "aarch64"].index(machine)
    allowed = {numbers[column] for numbers in ALLOWED.values()} - {None}
    for number in range(600):
        expected = ALLOW if number in allowed else ENOSYS if number == CLONE3[column] else EPERM
        assert ran(machine, number, 0xFFFF, 0xFFFF, 0xFFFF) == expected, number
    assert ran(machine, 0, architecture=0x40000003) == KILL  # 32-bit x86
    assert ran(machine, IOCTL[column], 0, 0x5413) == ALLOW
    assert ran(machine, IOCTL[column], 0, 0x5412) == EPERM  # TIOCSTI: type into a terminal
    assert ran(machine, FCNTL[column], 0, 1030) == ALLOW
    assert ran(machine, FCNTL[column], 0, 6) == EPERM  # F_SETLK
    assert ran(machine, PRLIMIT64[column], 0, 7, 0) == ALLOW
    assert ran(machine, PRLIMIT64[column], 0, 7, 1) == ran(machine, PRLIMIT64[column], 0, 7, 1 << 32) == EPERM


def test_x32() -> None:
    assert ran("x86_64", 0x40000000) == ran("x86_64", 0x40000027) == ran("x86_64", 0xFFFFFFFF) == KILL


def test_it_fits_the_kernels_limit() -> None:
    assert all(len(program(machine)) < 4_096 for machine in _TABLES)
    assert all(max(step[1:3]) < 256 for machine in _TABLES for step in program(machine))
    assert not seccomp.is_known("riscv64")
