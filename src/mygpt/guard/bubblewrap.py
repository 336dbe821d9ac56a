"""A sandbox inside bubblewrap, where that is installed: a second wall, made by others.

    Sandbox(through=bubblewrap())

bubblewrap gives namespaces of its own and a read-only view of the files; the keeper then isolates itself inside, as it always does.

Source: bwrap(1); https://github.com/containers/bubblewrap
"""

import shutil

from mygpt.core.errors import UsageError
from mygpt.guard.sandbox import Wrapper

_OPTIONS = (
    *("--unshare-all", "--die-with-parent", "--new-session", "--chdir", "/"),
    *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
)


def bubblewrap() -> Wrapper:
    """Raises UsageError where it is not installed."""
    program = shutil.which("bwrap")
    if program is None:
        fix = "Install it (`apt install bubblewrap`), or leave it out: the sandbox isolates without it."
        raise UsageError("bubblewrap was asked for and is not installed (no `bwrap` on the path).", fix=fix)
    return lambda command: [program, *_OPTIONS, "--", *command]
