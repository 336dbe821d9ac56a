"""What a forward pass keeps for the backward pass, in bytes: the pass itself, on tensors without data.

    passed = ForwardPass(decoder_pass, shape_of)             what an objective computes for a micro-batch
    activation_bytes(module, passed.run, (8, 256), ...)      `module` without weights, from `lm/load.blueprint` or `lm/heads.head_blueprint`

Nothing is computed and nothing is loaded, so that any architecture, method, head and attention counts as it is.

Source  ours; what autograd keeps is told by its own hooks for saved tensors
Dims    B rows   T tokens
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mygpt.core.digest import digest_value
from mygpt.lm.attention import grouped_attention
from mygpt.lm.inputs import Encoded, padded
from mygpt.lm.logits import has_one_masked_head
from mygpt.lm.virtual_tokens import prompt_tokens
from mygpt.training.losses import hidden_states, masked_states, target_states
from mygpt.training.recompute import is_recomputed

Shape = tuple[int, ...]  # of a micro-batch: rows, then tokens of each (read; of an encoder-decoder, written too)

_KEPT: dict[str, int | None] = {}  # by everything that it depends on: half a second each


@dataclass(frozen=True)
class ForwardPass:
    """What an objective computes for a micro-batch. `run` is a function of a module: what it keeps is remembered by its name."""

    run: Callable[..., object]  # run(module, *shape), up to the hidden states of which some are given logits
    shape_of: Callable[[Sequence[int]], Shape]
    logits_of: Callable[[Sequence[int]], int] | None = None  # how many are made beside `run`; None: labels x vocabulary
    most_labels: int | None = None  # whose logits stand in memory together; None: those of a micro-batch


def rows_of(lengths: Sequence[int]) -> Callable[[Sequence[int]], Shape]:
    """Examples of these lengths, one a row."""
    return lambda micro: (len(micro), max(lengths[i] for i in micro))


def packed_rows_of(lengths: Sequence[int]) -> Callable[[Sequence[int]], Shape]:
    """All in one row, in which none sees another: that holds no more attention weights than as many tokens in rows of its longest."""

    def shape_of(micro: Sequence[int]) -> Shape:
        longest = max(lengths[i] for i in micro)
        return math.ceil(sum(lengths[i] for i in micro) / longest), longest

    return shape_of


def answers_of(sizes: Sequence[tuple[int, int]]) -> Callable[[Sequence[int]], Shape]:
    """Of an encoder-decoder. `sizes`: tokens that are read and written, of each example."""

    def shape_of(micro: Sequence[int]) -> Shape:
        read, written = zip(*(sizes[i] for i in micro), strict=True)
        return len(micro), max(read), max(written)

    return shape_of


# -- forward passes, up to the hidden states of which some are given logits ---------------------------------------------------


def decoder_pass(module: Any, rows: int, tokens: int) -> torch.Tensor:
    """(B, T, D)"""
    return hidden_states(module, _no_ids(module, rows, tokens))


def own_pass(module: Any, rows: int, tokens: int) -> Any:
    """Of a model whose head reads every token."""
    with grouped_attention(module):
        return module(**some_inputs(module, rows, tokens))


def masked_pass(module: Any, rows: int, tokens: int) -> Any:
    """As `label_losses.summed_masked_loss`."""
    if not has_one_masked_head(module):
        return own_pass(module, rows, tokens)
    inputs = some_inputs(module, rows, tokens)
    return masked_states(module, inputs["input_ids"], inputs["attention_mask"])


def answer_pass(module: Any, rows: int, read: int, written: int) -> Any:
    """As `label_losses.summed_answer_loss`."""
    inputs, target_BA = some_inputs(module, rows, read), _no_ids(module, rows, written)
    with grouped_attention(module):
        if prompt_tokens(module):
            return module(**inputs, decoder_input_ids=target_BA, use_cache=False)
        return target_states(module, inputs["input_ids"], inputs["attention_mask"], target_BA)


def some_inputs(module: Any, rows: int, tokens: int) -> dict[str, torch.Tensor]:
    """What `module(**...)` takes, as `lm/inputs.padded` makes it."""
    return padded([Encoded((0,) * tokens, (0,) * tokens)] * rows, module, padding_id=0)


def _no_ids(module: Any, rows: int, tokens: int) -> torch.Tensor:
    return torch.zeros((rows, tokens), dtype=torch.long, device=next(module.parameters()).device)


# -- what they keep ----------------------------------------------------------------------------------------------------------


def activation_bytes(module: Any, run: Callable[..., object], shape: Shape, *, device: torch.device) -> int | None:
    """What `run(module, *shape)` keeps on `device`; None where it looks at values. `module` is on the meta device; its tensors are
    replaced."""
    weights = [(name, list(p.shape), str(p.dtype), p.requires_grad) for name, p in module.named_parameters()]
    called = f"{run.__module__}.{run.__qualname__}"
    again = any(map(is_recomputed, module.modules()))
    asked = digest_value([called, module.config.to_json_string(use_diff=False), weights, again, list(shape), str(device)])
    if asked not in _KEPT:
        _KEPT[asked] = _kept_for_backward(module, run, shape, device=device)
    return _KEPT[asked]


def _kept_for_backward(module: Any, run: Callable[..., object], shape: Shape, *, device: torch.device) -> int | None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    without_data = FakeTensorMode()
    _replace_tensors(module, without_data, device)
    weights = {p.untyped_storage()._cdata for p in module.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage  # held, so that its address is not used again
        return tensor

    try:
        with without_data, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            run(module, *shape)
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError, AssertionError):
        return None  # its forward pass looks at values, or keeps tensors where nobody finds them
    return sum(storage.nbytes() for storage in kept.values())


def _replace_tensors(module: Any, without_data: Any, device: torch.device) -> None:
    """Meta tensors by ones that claim to lie on `device`, where the attention of that device is chosen."""
    made: dict[int, torch.Tensor] = {}
    for part in module.modules():
        for table in (part._parameters, part._buffers, getattr(part, "prompt_tokens", {})):  # peft's, in a dict of its own
            for name, tensor in table.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    with without_data:
                        empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                    is_weight = isinstance(tensor, torch.nn.Parameter)
                    made[id(tensor)] = torch.nn.Parameter(empty, requires_grad=tensor.requires_grad) if is_weight else empty
                table[name] = made[id(tensor)]
