"""How tensors on a CPU lie in memory: what they give back stays for the next ones, and weights lie in huge pages. How they reach a GPU.

The C library maps every block above 32 MB afresh and unmaps it when freed, so each large tensor of each step is made of pages that the
kernel must find and clear again. Where that is slow (most virtual machines) it costs more than the arithmetic: one LoRA step of a 135M
model on 8 x 192 tokens, two cores of a virtual machine: 400,000 page faults and 7.4 s; kept, 2 faults and 4.1 s.

What is kept is then larger than what was ever in use at once, since each kind of work leaves other gaps. `give_back_freed_memory` after a
piece of work keeps the sum from growing.

A decoding step reads every weight once, and a processor that has to look up where each page of 4 kB lies waits for that as well. In pages
of 2 MB (madvise(2), MADV_HUGEPAGE) the steps of a 135M model take 0.80 of the time for 1 and 4 answers, 0.86 for 16, 0.89 for 64 (two cores
of a virtual machine). Moving the weights there takes 0.05 s.
"""

import ctypes
import functools
import itertools
import mmap
import sys
from typing import Any

import torch

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # malloc.h of the GNU C library
_NEVER = 2**31 - 1  # bytes: the largest that mallopt takes
_LINE = 64  # bytes: tensors begin where a line of the processor's cache does
_MOVED_BYTES = 2**28  # of weights: then what they left is given back, so that a model is not held twice


@functools.cache
def keep_freed_memory() -> bool:
    """For the whole process, from now on. False where the C library has no such setting (macOS, musl): nothing is changed then."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        return False
    # one arena: those of other threads hold no block above 64 MB and would map it afresh
    return all(mallopt(name, value) == 1 for name, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER)))


def give_back_freed_memory() -> None:
    """Once, to the system: what no tensor uses now. Only where it was kept."""
    if keep_freed_memory.cache_info().currsize and keep_freed_memory():
        ctypes.CDLL(None).malloc_trim(0)


def move_into_huge_pages(module: Any) -> bool:
    """Every weight on a CPU, into one block of memory; what is tied stays tied. False where the system has no such pages."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return False
    weights = {id(one): one for one in (*module.parameters(), *module.buffers()) if _is_plain(one)}
    ends = list(itertools.accumulate(-(-one.nbytes // _LINE) * _LINE for one in weights.values()))
    if not ends:
        return False
    block = mmap.mmap(-1, ends[-1], flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared pages follow another rule of the system's
    block.madvise(mmap.MADV_HUGEPAGE)
    given_back = 0
    for one, start, end in zip(weights.values(), [0, *ends], ends, strict=False):
        # a storage of its own for each: one for all would be copied and saved whole with any of them
        place = torch.frombuffer(block, dtype=one.dtype, count=one.numel(), offset=start).view(one.shape)
        one.data = place.copy_(one.data)
        if end - given_back >= _MOVED_BYTES or end == ends[-1]:
            give_back_freed_memory()
            given_back = end
    return True


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Sent from pinned memory to a GPU, which is not waited for: it may still be busy with what came before."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu" and type(tensor.data) is torch.Tensor and tensor.layout == torch.strided and tensor.numel() > 0
