"""The sandbox: how many ways out are contained, and how long a program takes, cold and warm.

    python -m benchmarks.sandbox --json --keep

escapes_contained   attempts of tests/guard/sandbox_attempts.py that the test finds contained, of all
cold_ms             median of whole calls of `run("1 + 1")`: start, isolate, run, end
warm_ms             median of `sandbox.run("1 + 1")`: a fresh process each time
left_behind         after 1,000 warm runs: processes, mounts, descriptors and files of /tmp more than before
rivals              a plain `python -I -S` with no isolation at all; bubblewrap around the same, where installed (a namespace sandbox of
                    the field, without seccomp or Landlock unless one writes them, and without anything warm)
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.record import arguments, finish
from mygpt.guard.sandbox import Sandbox, run

_COLD, _WARM, _LEAK = 100, 500, 1_000
_BWRAP = ("--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp")


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    contained, attempts = escapes()
    python = [os.path.realpath(sys.executable), "-I", "-S", "-c", "print(1 + 1)"]
    figures: dict[str, Any] = {"escapes_contained": contained, "escapes": attempts, **left_behind()}
    figures["cold_ms"] = median_ms(_COLD, lambda: _is_two(run("1 + 1").value))
    with Sandbox() as sandbox:
        sandbox.run("1 + 1")
        figures["warm_ms"] = median_ms(_WARM, lambda: _is_two(sandbox.run("1 + 1").value))
    with Sandbox(packages=("numpy",), preload=("numpy",)) as sandbox:
        sandbox.run("1 + 1")
        figures["warm_numpy_ms"] = median_ms(_WARM, lambda: _is_two(sandbox.run("import numpy\nnumpy.ones(2).sum()").value))
    figures["plain_python_ms"] = median_ms(_COLD, lambda: _printed(python))
    if bwrap := shutil.which("bwrap"):
        figures["bubblewrap_ms"] = median_ms(_COLD, lambda: _printed([bwrap, *_BWRAP, *python]))
        figures["ratio"] = round(figures["bubblewrap_ms"] / figures["warm_ms"], 2)
    finish("sandbox", figures, options)


def escapes() -> tuple[int, int]:
    """Attempts contained, and made."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "tests/guard/test_sandbox_escapes.py", "-k", "test_contained", f"--junitxml={report}"],
            stdout=subprocess.DEVNULL,
        )
        cases = ElementTree.parse(report).getroot().findall(".//testcase")
    return sum(len(case) == 0 for case in cases), len(cases)


def left_behind() -> dict[str, Any]:
    def state() -> list[list[str]]:
        return [
            Path(f"/proc/self/task/{os.getpid()}/children").read_text().split(),
            Path("/proc/self/mountinfo").read_text().splitlines(),
            os.listdir("/proc/self/fd"),
            os.listdir("/tmp"),
        ]

    before = state()
    with Sandbox() as sandbox:
        for _ in range(_LEAK):
            _is_two(sandbox.run("open('/tmp/left', 'w').write('x')\n1 + 1").value)
    return {"left_behind": sum(len(now) - len(then) for now, then in zip(state(), before, strict=True)), "runs": _LEAK}


def median_ms(times: int, work: Callable[[], None]) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return round(statistics.median(taken) * 1e3, 2)


def _is_two(value: Any) -> None:
    assert value == 2, value


def _printed(command: list[str]) -> None:
    made = subprocess.run(command, capture_output=True, env={}, stdin=subprocess.DEVNULL)
    assert made.stdout == b"2\n", made.stderr


if __name__ == "__main__":
    main()
