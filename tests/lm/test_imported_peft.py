import subprocess
import sys

import torch

from mygpt.lm.adapters.imported_peft import _compiled_when_called, imported_peft

LOADED = """
import sys, torch
compile = torch.compile
from mygpt.lm.adapters.imported_peft import imported_peft
peft = imported_peft()
print(torch.compile is compile, "bitsandbytes" in sys.modules, "torch._inductor.compile_fx" in sys.modules, peft.LoraConfig(r=3).r)
"""


def test_peft_is_imported_without_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False", "3"]  # bitsandbytes is there, as peft needs it for four-bit weights


def test_it_is_imported_once() -> None:
    assert imported_peft() is imported_peft() is sys.modules["peft"]


def test_what_was_put_off_is_compiled_when_called() -> None:
    traced: list[object] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        traced.append(graph)
        return graph.forward

    @_compiled_when_called(backend=backend)
    def doubled(x: torch.Tensor) -> torch.Tensor:
        """Twice `x`."""
        return x * 2

    assert (doubled.__name__, doubled.__doc__, traced) == ("doubled", "Twice `x`.", [])
    for value in (1.0, 4.0):
        assert doubled(torch.tensor([value])).item() == 2 * value
    assert len(traced) == 1  # compiled at the first call, not again

    assert _compiled_when_called(lambda x: x + 1, backend=backend)(torch.tensor([1.0])).item() == 2.0
