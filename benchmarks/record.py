"""What every measurement keeps beside its figures: when, on what, with which code, versions and seed, by which command."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mygpt.metrics.bootstrap import Interval

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("mygpt", "torch", "triton", "transformers", "peft", "bitsandbytes", "tokenizers", "pyarrow", "numpy", "scipy")


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print the record on stdout")
    parser.add_argument("--keep", action="store_true", help="write it to benchmarks/results/")
    return parser


def finish(name: str, figures: dict[str, Any], options: argparse.Namespace, *, seed: int = 0) -> None:
    """`seed` is that of the runs and of what the script draws itself; figures that name their own keep it."""
    about = {"machine": machine(), "versions": versions(), "commit": commit(), "date": time.strftime("%Y-%m-%d")}
    record = {"benchmark": name, "seed": seed, **figures, **about}
    record["command"] = f"python -m benchmarks.{name} " + " ".join(a for a in sys.argv[1:] if a not in ("--json", "--keep"))
    if options.keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.json:
        sys.stdout.write(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def limits(interval: Interval) -> dict[str, float]:
    return {key: round(getattr(interval, key), 4) for key in ("estimate", "low", "high")}


def commit() -> str | None:
    """Of this checkout, with `-dirty` where files differ from it; None where there is no git."""
    describe = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(describe, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None


def machine() -> dict[str, Any]:
    names = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "memory_gib": round(memory / 2**30, 1),
        "gpu": gpu(),
    }


def gpu() -> str:
    """Those that torch sees; a process that did not import torch used none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return "none"
    properties = torch.cuda.get_device_properties(0)
    named = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return named if torch.cuda.device_count() == 1 else f"{torch.cuda.device_count()} x {named}"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
