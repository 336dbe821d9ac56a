"""What this machine can do and what it has: matrix products a second, memory, and the most memory that was in use.

The product is measured once in a process for each device, number format and count of threads, in a tenth of a second; the fastest that was
ever seen is kept in `<home>/cache/matmul.json`, since other work on the machine can only make it slower. Beside it, in reached.json: the
share of it that each kind of training reached.
"""

import contextlib
import functools
import json
import os
import platform
import resource
import time
from pathlib import Path

import torch

_MEASURED_SECONDS = 0.1
_SIDE = {"cpu": 1024, "cuda": 8192}
_CGROUPS = Path("/sys/fs/cgroup")
_STATUS = Path("/proc/self/status")


def matmul_flops_per_second(device: torch.device, dtype: torch.dtype, home: Path) -> float:
    """The limit that training is measured against: the fastest square matrix product seen, 2 n^3 operations each."""
    file, key = home / "cache" / "matmul.json", device_words(device, dtype)
    seen, measured = _read(file).get(key, 0.0), _measured(key, device, dtype)
    if measured > seen:
        _write(file, key, measured)
    return max(seen, measured)


def device_words(device: torch.device, dtype: torch.dtype) -> str:
    """What measurements of speed belong to."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{_processor()}, {torch.get_num_threads()} threads"
    return f"{name}, {str(dtype).removeprefix('torch.')}"


def reached_share(kind: str, home: Path) -> float | None:
    """Of the limit, by the last training of this kind here."""
    return _read(home / "cache" / "reached.json").get(kind)


def remember_share(kind: str, share: float, home: Path) -> None:
    _write(home / "cache" / "reached.json", kind, share)


def _read(file: Path) -> dict[str, float]:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        return {key: float(value) for key, value in kept.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _write(file: Path, key: str, value: float) -> None:
    """Without it, the same is measured again next time: no home is made for it."""
    if not file.parents[1].is_dir():
        return
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{file.name}.{os.getpid()}")
        beside.write_text(json.dumps({**_read(file), key: value}, indent=1), encoding="utf-8")
        os.replace(beside, file)


@functools.lru_cache
def _measured(key: str, device: torch.device, dtype: torch.dtype) -> float:
    side = _SIDE.get(device.type, 1024)
    draw = torch.Generator(device=device).manual_seed(0)  # its own: the run's random numbers stay as they are
    left = torch.rand(side, side, generator=draw, device=device).to(dtype)
    out = left @ left
    fastest, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < _MEASURED_SECONDS:
        started = time.perf_counter()
        torch.mm(left, left, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fastest = min(fastest, time.perf_counter() - started)
    return 2 * side**3 / fastest


def memory_limit_bytes(device: torch.device) -> int:
    """Of the GPU; else of the machine, or of the control groups that this process is in where they allow less: the share of one rank."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun says how many it started on this machine
    return min([machine, *_cgroup_limits()]) // ranks_here


def _cgroup_limits(membership: Path = Path("/proc/self/cgroup"), root: Path = _CGROUPS) -> list[int]:
    """Source: cgroups(7). Version 2: memory.max of the group and of all above it; version 1: memory.limit_in_bytes."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    limits = []
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        group = top / place.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                with contextlib.suppress(OSError, ValueError):  # "max", or a group that is not visible from here
                    limits.append(int((folder / name).read_text()))
    return limits


class PeakMemory:
    """The most that was in use since it was made: of the GPU's allocator, else the resident memory of this process."""

    def __init__(self, device: torch.device):
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with contextlib.suppress(OSError):  # proc(5), clear_refs: 5 sets the high-water mark back to what is in use now
                Path("/proc/self/clear_refs").write_text("5")

    def bytes(self) -> int:
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        unit = 1 if platform.system() == "Darwin" else 1024
        return _status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_bytes(device: torch.device) -> int:
    """What this process holds now."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return _status_bytes("VmRSS")


def _status_bytes(name: str) -> int:
    """0 where the kernel does not say."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
