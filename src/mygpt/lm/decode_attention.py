"""Attention of a decoding step, in C: a few queries over many cached keys, at the speed at which memory gives them.

torch's kernels take 7 µs to set up each of their small products, of which a step of 64 rows has 11,520; the file beside this one reads
keys and values once and multiplies as they come. It is compiled when it is first wanted, by the machine's own C compiler, in about a
second, and kept in the user's cache. Without a compiler, or without AVX-512 BF16, torch's kernels do the work.

Source    decode_attention.c
We differ scores and weights stay float32 throughout, where the kernels it stands in for round the weights to bfloat16
Dims      B sequences   H key/value heads   G query heads of each   Q new tokens   S keys   D head size
"""

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import torch

from mygpt.core.digest import digest_value
from mygpt.core.home import model_cache
from mygpt.lm.processor import has_cpu_flag

_MOST_D, _MOST_ROWS = 128, 16  # of a head: beyond, products are large enough for torch's kernels
_OPTIONS = ("-O3", "-march=native", "-fPIC", "-std=gnu11", "-fopenmp")
_COMPILE_SECONDS = 60
_Function = Callable[..., int]


def suits(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> bool:
    """Whether `decode_attention` can be called with these: bfloat16 on a CPU that has the instructions, few queries, a mask to add."""
    B, heads, Q, D = query.shape
    if query.dtype != torch.bfloat16 or key.dtype != torch.bfloat16 or D % 32 or D > _MOST_D or heads // key.shape[1] * Q > _MOST_ROWS:
        return False
    if value.shape[-1] != D or not all(one.stride(-1) == 1 for one in (query, key, value)):
        return False
    if mask is None:
        return Q == 1 and _function() is not None
    is_plain = mask.dtype == torch.bfloat16 and mask.shape[1] == 1 and mask.shape[2:] == (Q, key.shape[2]) and mask.stride(-1) == 1
    return is_plain and mask.shape[0] in (1, B) and _function() is not None


def decode_attention(
    query_BhQD: torch.Tensor, key_BHSD: torch.Tensor, value_BHSD: torch.Tensor, mask_B1QS: torch.Tensor | None, scaling: float | None
) -> torch.Tensor:
    """(B, Q, heads, D). Only for what `suits`."""
    B, heads, Q, D = query_BhQD.shape
    H, S = key_BHSD.shape[1], key_BHSD.shape[2]
    out_BQhD = query_BhQD.new_empty(B, Q, heads, D)
    function = _function()
    assert function is not None
    mask_strides = (0, 0) if mask_B1QS is None else (mask_B1QS.stride(0) if len(mask_B1QS) == B else 0, mask_B1QS.stride(2))
    failed = function(
        *(out_BQhD.data_ptr(), query_BhQD.data_ptr(), key_BHSD.data_ptr(), value_BHSD.data_ptr()),
        0 if mask_B1QS is None else mask_B1QS.data_ptr(),
        *(B, H, heads // H, Q, S, D),
        *query_BhQD.stride()[:3],
        *key_BHSD.stride()[:3],
        *value_BHSD.stride()[:3],
        *mask_strides,
        D**-0.5 if scaling is None else scaling,
        torch.get_num_threads(),
    )
    if failed:
        raise MemoryError(f"no memory for the scores of {S} keys")
    return out_BQhD


@functools.cache
def _function() -> _Function | None:
    """The compiled function, or None where it cannot be had."""
    if not has_cpu_flag("avx512_bf16") or os.environ.get("MYGPT_NO_COMPILER"):
        return None
    path = _compiled()
    if path is None:
        return None
    try:
        found = ctypes.CDLL(str(path)).decode_attention
    except OSError:  # a folder that no program may be loaded from, say
        return None
    found.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_int64] * 17 + [ctypes.c_float, ctypes.c_int]
    function: _Function = found
    return function


def _compiled() -> Path | None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    source = (resources.files("mygpt.lm") / "decode_attention.c").read_text(encoding="utf-8")
    threads = _openmp_of_torch()
    made_by = [_OPTIONS, threads, _processor(), os.stat(compiler).st_mtime_ns, source]
    path = model_cache() / "compiled" / f"decode_attention-{digest_value(made_by)[:16]}.so"
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            file, library = Path(folder) / "decode_attention.c", Path(folder) / "library.so"
            file.write_text(source, encoding="utf-8")
            objects = [compiler, *_OPTIONS, "-c", str(file), "-o", f"{folder}/object.o"]
            linked = [compiler, "-shared", f"{folder}/object.o", *([threads] if threads else ["-fopenmp"]), "-o", str(library)]
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
    return next((line for line in lines if line.startswith("flags")), "")
