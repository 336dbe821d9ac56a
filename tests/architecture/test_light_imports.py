"""What must start fast starts without torch."""

import os
import subprocess
import sys
import time
from statistics import median
from typing import Any

import pytest

LIGHT = ("core", "artifacts", "metrics", "views", "catalog", "infer.protocols", "infer.scripted", "infer.remote", "cli.main", "__main__")
HEAVY = ("torch", "transformers", "peft", "tokenizers", "fastapi", "uvicorn", "scipy", "markitdown", "pypdfium2", "trafilatura")


def test_without_torch(modules: list[Any]) -> None:
    names = [m.name for m in modules if any(m.name == f"mygpt.{part}" or m.name.startswith(f"mygpt.{part}.") for part in LIGHT)]
    assert {f"mygpt.{part}" for part in ("core.run", "artifacts.lineage", "metrics", "views", "infer.protocols", "cli.main")} <= set(names)
    imports = "\n".join(f"import {name}" for name in names if not name.endswith("__main__"))
    code = f"import sys\n{imports}\nprint([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "limit_seconds"),
    [(["-c", "import mygpt"], 0.2), (["-m", "mygpt", "--help"], 0.5)],
    ids=["import mygpt", "mygpt --help"],
)
def test_starts_fast(arguments: list[str], limit_seconds: float) -> None:
    """The median of five; up to three times five, since other work on the machine only ever makes it slower."""
    for _ in range(3):
        seconds = median(_seconds(arguments) for _ in range(5))
        if seconds < limit_seconds:
            return
    pytest.fail(f"takes {seconds:.2f} s, the limit is {limit_seconds} s")


def _seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    environment = {**os.environ, "COLUMNS": "120"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - started
