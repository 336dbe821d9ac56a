"""Freed tensors leave their memory to the next ones: counted in page faults, in a process of its own."""

import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
import torch
from mygpt.lm.memory import keep_freed_memory

assert sys.argv[1] == "as it is" or keep_freed_memory()
for _ in range(30):
    torch.ones(16_000_000)  # 64 MB: 15,625 pages of 4 kB
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of the GNU C library")
def test_the_same_pages_serve_again() -> None:
    assert _faults("as it is") > 15 * 1_000  # a page may be larger than 4 kB, yet every tensor is made of new ones
    assert _faults("kept") < 200


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of the GNU C library")
def test_what_is_kept_can_be_given_back() -> None:
    program = """
import torch
from mygpt.lm.memory import give_back_freed_memory, keep_freed_memory

def megabytes():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) // 1024

keep_freed_memory()
tensors = [torch.ones(8_000_000) for _ in range(20)]  # 640 MB
kept = torch.ones(1_000)
before = megabytes()
del tensors
print(before - megabytes())
give_back_freed_memory()
print(before - megabytes())
"""
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    at_once, after = map(int, made.stdout.split())
    assert at_once < 100 and after > 500


def _faults(how: str) -> int:
    """Of the last fifteen tensors: the first ones find no place that suits them yet."""
    made = subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True, timeout=120)
    counts = [int(line) for line in made.stdout.split()]
    return counts[-1] - counts[14]
