"""Exit codes, and what the operating system says in words a user can act on."""

import errno
import os

import pytest

from mygpt.core.errors import Damaged, MygptError, Refused, Unreachable, UsageError, from_os_error


def test_exit_codes() -> None:
    codes = {MygptError: 1, UsageError: 2, Refused: 3, Damaged: 1, Unreachable: 1}
    assert {kind: kind("x", fix="y").exit_code for kind in codes} == codes


def test_both_halves_are_said() -> None:
    error = Refused("Needs 31.4 GB, this machine has 23.6.", fix="Try `--rank 8`.")
    assert str(error) == "Needs 31.4 GB, this machine has 23.6. Try `--rank 8`."


@pytest.mark.parametrize(
    ("number", "what", "fix"),
    [
        (errno.ENOSPC, "The disk is full at /home/x.", "mygpt gc"),
        (errno.EDQUOT, "The disk quota is used up at /home/x.", "mygpt gc"),
        (errno.EROFS, "The folder is read-only at /home/x.", "--home DIR"),
        (errno.EACCES, "Permission denied at /home/x.", "--home DIR"),
        (errno.ENOENT, "No such file or directory at /home/x.", "Check the path"),
    ],
)
def test_from_os_error(number: int, what: str, fix: str) -> None:
    error = from_os_error(OSError(number, os.strerror(number), "/home/x"))
    assert error.what == what and fix in error.fix and error.exit_code == 1


def test_from_os_error_without_number_or_path() -> None:
    assert from_os_error(OSError("something broke")).what == "something broke."
