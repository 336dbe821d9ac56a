"""Which files a process may touch, once more, beside what is mounted: read what is there, write in /tmp only; no TCP, no signals outside.

A second fence of another make: a slip in the mounts does not open the first, nor a slip here the second.

Source: landlock(7) and linux/landlock.h, ABI 1 to 6; what the kernel is too old for is left to the mounts, namespaces and seccomp.
"""

import ctypes
import os
import struct

from mygpt.guard.inside.kernel import LANDLOCK_ADD_RULE, LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF, system_call

_VERSION = 1  # flag: say the ABI instead of making a rule set
_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG, _MAKE_SYM, _REFER, _TRUNCATE = 1 << 7, 1 << 8, 1 << 12, 1 << 13, 1 << 14
_READ = _READ_FILE | _READ_DIR
_OWN = _READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER | _TRUNCATE
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many rights an ABI knows; from 5 on, device control too
_MOST_FILE_RIGHTS = 16
_TCP = 0b11  # bind, connect
_SCOPE = 0b11  # abstract sockets, signals


def abi() -> int:
    """Raises OSError where the kernel has no Landlock or it is switched off."""
    return system_call("landlock_create_ruleset", LANDLOCK_CREATE_RULESET, None, 0, _VERSION)


def restrict_files(version: int, own_directory: str) -> None:
    """From now on, for this process. Needs `no new privileges` to be set."""
    rights = (1 << _FILE_RIGHTS.get(version, _MOST_FILE_RIGHTS)) - 1
    handled = struct.pack("=QQQ", rights, _TCP if version >= 4 else 0, _SCOPE if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = system_call("landlock_create_ruleset", LANDLOCK_CREATE_RULESET, ctypes.c_char_p(handled), size, 0)
    for path, allowed in (("/", _READ), (own_directory, _OWN), ("/dev/null", _READ_FILE | _WRITE_FILE)):
        at = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", allowed & rights, at)
        system_call("landlock_add_rule", LANDLOCK_ADD_RULE, rules, _PATH_BENEATH, ctypes.c_char_p(rule), 0)
        os.close(at)
    system_call("landlock_restrict_self", LANDLOCK_RESTRICT_SELF, rules, 0)
    os.close(rules)
