"""A C file of this package as a loaded library, compiled on the machine where it runs.

In about a second, once: the result lies in the user's cache, named by source, options and processor. Without a compiler, or where no
program may be loaded, there is None, and callers use torch's own kernels. `MYGPT_NO_COMPILER=1` says so by hand.
"""

import ctypes
import functools
import os
import platform
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

import torch

from mygpt.core.digest import digest_value
from mygpt.core.home import model_cache

_OPTIONS = ("-O3", "-march=native", "-fPIC", "-std=gnu11", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")
_WIDE = ("-mprefer-vector-width=512",)  # on x86: gcc takes half of the registers otherwise
_COMPILE_SECONDS = 60


@functools.cache
def c_library(file: str, *, defined: tuple[str, ...] = ()) -> ctypes.CDLL | None:
    """`file`: its name in this folder. `defined`: macros, as NAME=VALUE."""
    if os.environ.get("MYGPT_NO_COMPILER"):
        return None
    path = _compiled(file, defined)
    if path is None:
        return None
    try:
        return ctypes.CDLL(str(path))
    except OSError:  # a folder that no program may be loaded from, say
        return None


def _compiled(file: str, defined: tuple[str, ...] = ()) -> Path | None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    wanted = [one for one in resources.files("mygpt.lm").iterdir() if one.name == file or one.name.endswith(".h")]
    sources = {one.name: one.read_text(encoding="utf-8") for one in sorted(wanted, key=lambda one: one.name)}
    threads = _openmp_of_torch()
    options = (*_OPTIONS, *(_WIDE if platform.machine() in ("x86_64", "AMD64") else ()), *(f"-D{one}" for one in defined))
    made_by = [options, threads, _processor(), os.stat(compiler).st_mtime_ns, sources]
    path = model_cache() / "compiled" / f"{Path(file).stem}-{digest_value(made_by)[:16]}.so"
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            library = Path(folder) / "library.so"
            for name, source in sources.items():
                (Path(folder) / name).write_text(source, encoding="utf-8")
            objects = [compiler, *options, "-c", f"{folder}/{file}", "-o", f"{folder}/object.o"]
            linked = [compiler, "-shared", f"{folder}/object.o", *([threads] if threads else ["-fopenmp"]), "-lm", "-o", str(library)]
            for command in (objects, linked):
                subprocess.run(command, check=True, capture_output=True, timeout=_COMPILE_SECONDS)
            os.replace(library, path)
    except (OSError, subprocess.SubprocessError):
        return None
    return path


def _openmp_of_torch() -> str:
    """The thread pool that torch runs on: a second one beside it would fight for the same cores. "" where torch has none of its own."""
    found = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    return str(found[0]) if found else ""


def _processor() -> str:
    """A cache may lie on a disk that several machines share."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
