"""What can go wrong, in words a user can act on.

    MygptError            exit code 1: the work failed
    ├── UsageError        exit code 2: the request itself is wrong
    ├── Refused           exit code 3: a check said no (pre-flight, gate, sharing documents)
    ├── Stopped           exit code 143: asked to end (SIGTERM); what was done is kept
    ├── Damaged           exit code 1: a stored artefact is not what its manifest says
    └── Unreachable       exit code 1: a source (hub, package index, server) did not answer

Each carries `what` (what happened, with the value) and `fix` (what to do next).
"""

import errno


class MygptError(Exception):
    exit_code = 1

    def __init__(self, what: str, *, fix: str):
        super().__init__(what)
        self.what = what
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what} {self.fix}"


class UsageError(MygptError):
    exit_code = 2


class Refused(MygptError):
    exit_code = 3


class Stopped(MygptError):
    exit_code = 143  # 128 + SIGTERM, as shells say it


class Damaged(MygptError):
    pass


class Unreachable(MygptError):
    pass


_FREE_SPACE = "Free some space (`mygpt gc` removes what nothing refers to), then run the same command again."
_OTHER_HOME = "Choose a folder that you may write to with `--home DIR`."
_DISK_FAULTS = {
    errno.ENOSPC: ("The disk is full", _FREE_SPACE),
    errno.EDQUOT: ("The disk quota is used up", _FREE_SPACE),
    errno.EROFS: ("The folder is read-only", _OTHER_HOME),
    errno.EACCES: ("Permission denied", _OTHER_HOME),
    errno.EPERM: ("Permission denied", _OTHER_HOME),
}


def from_os_error(error: OSError) -> MygptError:
    """The same fault as a MygptError; nothing is lost, since artefacts are published whole or not at all."""
    where = f" at {error.filename}" if error.filename else ""
    what, fix = _DISK_FAULTS.get(error.errno or 0, (error.strerror or str(error), "Check the path and try again."))
    return MygptError(f"{what}{where}.", fix=fix)
