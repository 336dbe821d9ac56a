"""Memory that tensors on a CPU give back stays with the process for the next ones.

The C library maps every block above 32 MB afresh and unmaps it when freed, so each large tensor of each step is made of pages that the
kernel must find and clear again. Where that is slow (most virtual machines) it costs more than the arithmetic: one LoRA step of a 135M
model on 8 x 192 tokens, two cores of a virtual machine: 400,000 page faults and 7.4 s; kept, 2 faults and 4.1 s.

What is kept is then larger than what was ever in use at once, since each kind of work leaves other gaps. `give_back_freed_memory` after a
piece of work keeps the sum from growing.
"""

import ctypes
import functools
import sys

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # malloc.h of the GNU C library
_NEVER = 2**31 - 1  # bytes: the largest that mallopt takes


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
