"""peft, imported without a compiler.

peft imports bitsandbytes, which hands four functions for eight-bit weights to `torch.compile` as it is imported; that alone loads all of
inductor, about two seconds of every command that opens an adapter. Here they are compiled when they are first called.
"""

import importlib
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import torch

from mygpt.core.outbound import silence_hub


@cache
def imported_peft() -> Any:
    """The module `peft`."""
    silence_hub()
    compile_now = torch.compile
    torch.compile = _compiled_when_called  # type: ignore[assignment]
    try:
        return importlib.import_module("peft")
    finally:
        torch.compile = compile_now


def _compiled_when_called(function: Callable[..., Any] | None = None, **options: Any) -> Callable[..., Any]:
    """As `torch.compile`, also where it is called with options alone, as a decorator."""
    if function is None:
        return lambda decorated: _compiled_when_called(decorated, **options)
    compiled: list[Callable[..., Any]] = []

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if not compiled:
            compiled.append(torch.compile(function, **options))
        return compiled[0](*arguments, **named)

    return call
