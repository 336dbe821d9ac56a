"""Memory runs out: which errors say so, and what is answered instead of a traceback.

Between steps the answer names the step and its examples (`training/steps`); before and after them (weights, the check of the loss, the
optimiser's state, held-out measures, saving) what the recipe's settings leave to change.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mygpt.core.errors import MygptError

_SAID = ("can't allocate memory", "not enough memory", "out of memory", "alloc_failed")  # torch on a CPU, on a GPU, cuBLAS


@contextmanager
def out_of_memory_told(fix: Callable[[], str], *, where: Callable[[], str] = str) -> Iterator[None]:
    """An error of that kind inside the block becomes a MygptError; both functions are called then. Other errors stay as they are."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error).lower() for words in _SAID):
            raise
        said = str(error).strip().splitlines()
        raise MygptError(f"Out of memory{where()}{': ' + said[0] if said else '.'}", fix=fix()) from error


def advice_beside_steps(config: Any) -> str:
    """What to change where no step is under way: a micro-batch makes no difference there."""
    changes = ["a smaller base"]
    if getattr(getattr(config, "method", None), "name", "") in ("full", "freeze"):
        changes.append("`--set method=lora`")
    if getattr(config, "precision", "") == "float32":
        changes.append("`--set precision=bfloat16`")
    return (
        f"Use {' or '.join(changes)}. Other programs on this machine may hold the memory too. "
        "Steps that were done are kept: the same command goes on from there."
    )
