"""Where the layers of a transformers model are, and in each its attention and its feed-forward part, read from the module itself.

No table of architectures: a layer is an element of an outermost ModuleList that holds an attention; what an attention or a feed-forward
part ends with is the last of its linear layers, in the order in which the module declares them.
"""

import re
from typing import Any

from torch import nn

from mygpt.core.errors import Refused

_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_CROSS = re.compile(r"encoder_attn|encdec|cross", re.IGNORECASE)


def layers(module: Any) -> list[tuple[str, nn.Module]]:
    """(name, layer) from first to last; those of an encoder come before those of its decoder."""
    found: list[tuple[str, nn.Module]] = []
    lists: list[str] = []
    for name, part in module.named_modules():
        is_nested = any(name.startswith(f"{outer}.") for outer in lists)
        if isinstance(part, nn.ModuleList) and not is_nested and len(part) and any(_ATTENTION.search(n) for n in linear_names(part[0])):
            lists.append(name)
            found += [(f"{name}.{i}", layer) for i, layer in enumerate(part)]
    if not found:
        raise Refused(
            f"No layers with attention were found in a {type(module).__name__}.", fix="Choose a transformer: a model built of such layers."
        )
    return found


def linear_names(part: Any) -> list[str]:
    """Linear layers inside `part`, GPT-2's transposed ones too."""
    from transformers.pytorch_utils import Conv1D

    return [name for name, child in part.named_modules() if isinstance(child, (nn.Linear, Conv1D))]


def attention_names(layer: Any) -> list[str]:
    return [name for name in linear_names(layer) if _ATTENTION.search(name)]


def mlp_names(layer: Any) -> list[str]:
    return [name for name in linear_names(layer) if not _ATTENTION.search(name)]


def output_names(module: Any, layer: Any) -> tuple[str, str]:
    """The last linear layer of self-attention and of the feed-forward part: what each adds to the stream.

    Raises Refused where the one or the other does not end in a linear layer of the model's width (experts).
    """
    width = module.config.get_text_config().hidden_size
    ends = ([name for name in attention_names(layer) if not _CROSS.search(name)], mlp_names(layer))
    if all(names and _width(layer.get_submodule(names[-1])) == width for names in ends):
        return ends[0][-1], ends[1][-1]
    raise Refused(
        f"A layer of {type(module).__name__} does not end its attention and its feed-forward part in one linear layer each.",
        fix="Use `method=lora`, which takes any linear layer.",
    )


def _width(linear: Any) -> int:
    return int(linear.nf if hasattr(linear, "nf") else linear.out_features)
