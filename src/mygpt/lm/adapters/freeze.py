"""Freezing: some layers move, the rest stays as it is. The result is a new Model.

The last layers carry what is particular to a task, the first what is common to all text; a rate that falls from layer to layer towards
the entrance (`layer_decay`) is the soft form of the same.

Source     freezing layers: Lee et al. 2019, arXiv:1911.03090; a rate of its own for each layer: Howard and Ruder 2018, arXiv:1801.06146,
           section 3.2; as one factor from layer to layer: Clark et al. 2020, arXiv:2003.10555, appendix A
Cost       gradients and moments for what moves only; with `layers=last` no backward pass below the first layer that moves
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.lm.adapters.peft_model import is_within
from mygpt.lm.layers import layers


class Freeze(Config):
    """The first or last layers, or the parameters that a regular expression finds in their names; a classifier's new head always."""

    name: Literal["freeze"] = "freeze"
    learning_rate: PositiveFloat = 2e-4
    layers: Literal["last", "first"] = "last"
    num_layers: PositiveInt = 4
    pattern: str = ""  # given: trains what it finds, in place of layers; `.*` is every weight
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # rate of a layer, over that of the layer after it


def attach(module: Any, method: Freeze, *, whole: Sequence[str] = ()) -> Any:
    module.requires_grad_(False)
    chosen = set(_matching(module, method.pattern) if method.pattern else _of_layers(module, method))
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in chosen or is_within(name, whole))
    return module


def rate_factors(module: Any, method: Freeze) -> dict[str, float]:
    """Of every trained parameter, the share of the learning rate that it moves with: `layer_decay` to the power of the layers above it."""
    found = layers(module)
    above = {name: len(found) - 1 - i for i, (name, _) in enumerate(found)}
    entrance = module.get_input_embeddings()
    in_entrance = {id(p) for p in entrance.parameters()} if entrance is not None else set()
    factors = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            own = next((n for layer, n in above.items() if name.startswith(f"{layer}.")), len(found) if id(parameter) in in_entrance else 0)
            factors[name] = method.layer_decay**own
    return factors


def _of_layers(module: Any, method: Freeze) -> list[str]:
    found = layers(module)
    if method.num_layers > len(found):
        raise UsageError(
            f"{method.num_layers} layers were to be trained, and the model has {len(found)}.",
            fix=f"Set `method.num_layers` to at most {len(found)}, or use `method=full`.",
        )
    some = found[-method.num_layers :] if method.layers == "last" else found[: method.num_layers]
    return [name for name, _ in module.named_parameters() if any(name.startswith(f"{layer}.") for layer, _ in some)]


def _matching(module: Any, pattern: str) -> list[str]:
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        fix = r"For example: `method.pattern=layers\.(28|29)\.`"
        raise UsageError(f"`{pattern}` is not a regular expression: {error}.", fix=fix) from error
    names = [name for name, _ in module.named_parameters()]
    if found := [name for name in names if wanted.search(name)]:
        return found
    raise UsageError(f"No parameter has `{pattern}` in its name.", fix=f"They are named like {names[0]} and {names[len(names) // 2]}.")
