"""The few calls of the Linux kernel that isolation needs and Python 3.11 does not have, through the C library.

Each raises OSError with the call's name, so that a refusal can say which one the system does not allow.

Source: the manual pages unshare(2), mount(2), mount_setattr(2), pivot_root(2), capset(2), prctl(2).
"""

import ctypes
import os

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
AT_FDCWD, AT_RECURSIVE = -100, 0x8000

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63

# system calls that the C library has no function for: the same numbers on every 64-bit machine since 2011
_MOUNT_SETATTR = 442
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPSET = {"x86_64": 126, "aarch64": 91}

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


def call(name: str, result: int) -> int:
    """`result` of a C function, or OSError with its name and the reason."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result


def system_call(name: str, number: int, *arguments: object) -> int:
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return call(name, _syscall(ctypes.c_long(number), *wide))


def unshare(flags: int) -> None:
    call("unshare", _libc.unshare(flags))


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    call("mount", _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()))


def unmount(target: str) -> None:
    call("umount2", _libc.umount2(target.encode(), MNT_DETACH))


def make_read_only(path: str, *, below: bool = True, devices: bool = False) -> None:
    """The mount at `path` (and those `below`): nothing is written, no set-user-id program and, without `devices`, no device file works."""
    set_flags = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | (0 if devices else MOUNT_ATTR_NODEV)
    wanted = (ctypes.c_uint64 * 4)(set_flags, 0, 0, 0)
    where, flags = ctypes.c_char_p(path.encode()), AT_RECURSIVE if below else 0
    system_call("mount_setattr", _MOUNT_SETATTR, AT_FDCWD, where, flags, wanted, ctypes.sizeof(wanted))


def pivot(new_root: str, old_root: str) -> None:
    """`new_root`, a mount point, becomes `/`; what was `/` is from then on at `old_root`, which lies below it (or is the same: on top)."""
    paths = [ctypes.c_char_p(path.encode()) for path in (new_root, old_root)]
    system_call("pivot_root", _PIVOT_ROOT[os.uname().machine], *paths)


def set_host_name(name: str) -> None:
    """Of the own host-name namespace."""
    call("sethostname", _libc.sethostname(name.encode(), len(name)))


def prctl(option: int, value: int, pointer: object = None) -> None:
    call("prctl", _libc.prctl(option, ctypes.c_ulong(value), pointer, None, None))


def give_up_privileges() -> None:
    """No capability, none that a program could bring back, and nothing that is run gains any."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    for capability in range(_LAST_CAPABILITY + 1):
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), None, None, None) < 0:
            break  # one beyond the last that this kernel knows
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    system_call("capset", _CAPSET[os.uname().machine], header, none)
