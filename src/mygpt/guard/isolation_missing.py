"""Why this system does not isolate, and what its owner can do: the words for a refusal of `guard/sandbox`.

Source: user_namespaces(7), landlock(7), seccomp(2); Ubuntu's and Debian's own switches as their kernels' documentation names them.
"""

import errno
from pathlib import Path

_SWITCHES = {
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "sudo sysctl kernel.unprivileged_userns_clone=1"),
    "/proc/sys/user/max_user_namespaces": ("0", "sudo sysctl user.max_user_namespaces=10000"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": ("1", "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
}
_CONTAINERS = ("/.dockerenv", "/run/.containerenv")
_IN_CONTAINER = (
    "Start the container with a policy that allows user namespaces (`docker run --security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined --security-opt systempaths=unconfined`, or a seccomp profile that permits unshare and mount), "
    "or run mygpt outside it."
)
_FEATURES = {
    "landlock": (
        "Landlock (Linux 5.13 or newer, `landlock` among the kernel's security modules)",
        "Add `landlock` to what `lsm=` lists on the kernel's command line (`lsm=landlock,...`), or use a newer kernel.",
    ),
    "machine": ("a list of this processor's system calls", "Use x86_64 or aarch64."),
}
_NAMESPACES = {
    "user namespace": "user namespaces for ordinary users",
    "user map": "identities inside a user namespace",
    "namespaces": "mount, network, IPC and host-name namespaces inside a user namespace",
    "mounts": "mounts inside a user namespace",
}


def why_not(layer: str, number: int, call: str, message: str) -> tuple[str, str]:
    """What is missing, and what to do."""
    if layer in _FEATURES:
        missing, fix = _FEATURES[layer]
    else:
        missing, fix = _NAMESPACES.get(layer, layer), _for_namespaces(number)
    reason = f"{call}: {message}" if call else message
    return f"Code that a model wrote is run only in isolation, and this system does not give {missing} ({reason}). Nothing was run.", fix


def _for_namespaces(number: int) -> str:
    for path, (off, command) in _SWITCHES.items():
        if _content(path) == off:
            return f"They are switched off ({path} is {off}): `{command}`."
    if any(Path(path).exists() for path in _CONTAINERS) or _is_filtered():
        return _IN_CONTAINER
    if number == errno.ENOSPC:
        return "The limit of user namespaces is reached: `sudo sysctl user.max_user_namespaces=10000`."
    return "Ask whoever runs this machine to allow user namespaces (CONFIG_USER_NS; no policy that forbids unshare and mount)."


def _content(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _is_filtered() -> bool:
    """Whether a seccomp filter is on this process, as container engines set one."""
    return any(line.split() == ["Seccomp:", "2"] for line in _content("/proc/self/status").splitlines())
