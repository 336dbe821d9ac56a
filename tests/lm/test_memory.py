"""Freed tensors leave their memory to the next ones: counted in page faults, in a process of its own. Weights move into huge pages."""

import mmap
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.lm.memory import move_into_huge_pages

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


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="pages of 2 MB are Linux's")
def test_weights_in_huge_pages_are_the_same_weights(tmp_path: Path) -> None:
    """Bit for bit, tied and saved as before, each in a storage of its own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
    module = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=99, tie_word_embeddings=True)).to(torch.bfloat16)
    before = {name: one.clone() for name, one in module.state_dict().items()}
    ids = torch.arange(7)[None]
    logits = module(ids).logits
    assert move_into_huge_pages(module)
    assert all(torch.equal(one, before[name]) for name, one in module.state_dict().items())
    assert torch.equal(module(ids).logits, logits)
    assert module.lm_head.weight is module.model.embed_tokens.weight
    storages = [one.untyped_storage() for one in module.parameters()]
    assert all(storage.nbytes() == one.nbytes for storage, one in zip(storages, module.parameters(), strict=True))
    assert all(one.data_ptr() % 64 == storages[0].data_ptr() % 64 for one in module.parameters())
    module(ids).logits.sum().backward()
    assert all(one.grad is not None for one in module.parameters())
    module.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert all(torch.equal(one, before[name]) for name, one in again.state_dict().items())


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="pages of 2 MB are Linux's")
def test_a_model_is_not_held_twice_while_it_is_moved() -> None:
    """16 weights of 64 MB: at no time are there more than 1.5 GB, and at the end the pages are huge (where the system gives them)."""
    program = """
import torch
from mygpt.lm.memory import keep_freed_memory, move_into_huge_pages

def megabytes(file, field):
    return sum(int(line.split()[1]) for line in open(file) if line.startswith(field)) // 1024

keep_freed_memory()
module = torch.nn.ParameterList(torch.ones(16_000_000) for _ in range(16))
before = megabytes("/proc/self/status", "VmRSS")
move_into_huge_pages(module)
print(*(megabytes("/proc/self/status", field) - before for field in ("VmHWM", "VmRSS")), megabytes("/proc/self/smaps", "AnonHugePages"))
"""
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    peak, after, huge = map(int, made.stdout.split())
    assert peak < 500 and abs(after) < 100
    if "[never]" not in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        assert huge > 500  # of 977
