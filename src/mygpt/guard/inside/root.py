"""The file system of a sandbox: Python's library, the system's shared libraries and the allowed packages, all read-only, and nothing else.

No /proc, no /sys, no /home, no /etc; of /dev only null, zero and urandom. /tmp is empty here and covered afresh for every program.

Source: pivot_root(2), the order of mounts as bubblewrap has it: first a root in memory beside the old one, then what is to be seen.
"""

import os

from mygpt.guard.inside import kernel

PACKAGES = "/packages"  # where the allowed ones are
OWN_DIRECTORY = "/tmp"
_SYSTEM_LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
_OTHER_PACKAGES = ("site-packages", "dist-packages")  # what else is installed lies in these, below the libraries
_COVER = ("/tmp", "/run", "/var", "/mnt")  # the first of these that exists is where the new root is put together
_SMALL = "size=1m,nr_inodes=512,mode=755"


def build_root(library: str, packages: dict[str, str]) -> None:
    """For a process that has a mount namespace of its own; there is no way back. `library`: the folder of Python's own modules, shown
    with what lies beside it, since modules in C may be linked to that.

    `packages`: files or folders, by the name that each has below PACKAGES.
    """
    beside = os.path.dirname(library)
    shown = {path: os.path.realpath(path) for path in (*_SYSTEM_LIBRARIES, beside, *_DEVICES) if os.path.exists(path)}
    shown |= {f"{PACKAGES}/{name}": os.path.realpath(path) for name, path in packages.items()}
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    base = next(folder for folder in _COVER if os.path.isdir(folder))
    _in_memory(base)
    for name in ("old", "new"):
        os.mkdir(f"{base}/{name}")
    _in_memory(f"{base}/new")
    kernel.pivot(base, f"{base}/old")
    os.chdir("/")
    for path in sorted(shown, key=len):  # a folder before what lies in it
        _show("/old" + shown[path], "/new" + path)
    for hidden in _OTHER_PACKAGES:
        for path in (library, "/usr/lib/python3"):
            if os.path.isdir(folder := f"/new{path}/{hidden}"):
                _in_memory(folder, kernel.MS_RDONLY)
    os.mkdir("/new" + OWN_DIRECTORY)
    kernel.make_read_only("/new", below=False)
    os.chdir("/new")
    kernel.pivot(".", ".")
    kernel.unmount(".")
    os.chdir("/")


def _show(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if not os.path.exists(target):
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o444))
    kernel.mount(source, target, flags=kernel.MS_BIND | kernel.MS_REC)
    kernel.make_read_only(target, devices=target.startswith("/new/dev/"))


def _in_memory(folder: str, flags: int = 0) -> None:
    kernel.mount("tmpfs", folder, "tmpfs", flags | kernel.MS_NOSUID | kernel.MS_NODEV, _SMALL)
