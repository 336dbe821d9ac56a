"""Attention over a packed row on a GPU, by torch's kernel for sequences of several lengths: no block between two examples is computed.

Examples may share a beginning (`PackedRow.forked`): a prompt, and behind it several answers, each of which sees the prompt and itself. Then
keys and values are gathered, those of the prompt once for every answer, and the queries of the prompt are computed once.

It needs no mask and is compiled for no shape. Where examples end is worked out once for a row and handed to every layer as one object,
which torch.compile passes through unread: a graph belongs to a length of row, whatever examples share it.

Source    FlashAttention 2: Dao 2023, arXiv:2307.08691, through torch.nn.attention.varlen
Dims      T tokens of the row   N examples   K keys of all of them   h heads   H key/value heads   D head size
"""

import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from mygpt.lm.memory import on_device

_NAME = "mygpt_varlen"
_LARGEST_HEAD = 256  # elements, of FlashAttention 2
_CAPABILITY = (8, 0)  # the first with its kernels
_NOT_PLAIN = ("softcap", "s_aux", "position_bias")  # arguments that change the result
_CAPPED = "attn_logit_softcapping"  # the setting behind the first of them


@dataclass(eq=False)
class Keys:
    """What the tokens of each example look at, where that is more than the example."""

    places_K: torch.Tensor  # in the row, example after example
    bounds_N: torch.Tensor
    longest: int


@dataclass(eq=False)  # not frozen: torch 2.11 reads every field of a frozen one, and compiles anew for each
class PackedRow:
    bounds_N: torch.Tensor  # int32, on the device: where examples begin, and the row's end
    longest: int  # tokens
    keys: Keys | None = None  # where examples share a beginning

    @classmethod
    def of(cls, positions_1T: torch.Tensor, device: torch.device | None = None) -> "PackedRow":
        """For `device`, or where the positions are. Of positions on a GPU it waits for them."""
        bounds = [*(positions_1T[0] == 0).nonzero()[:, 0].tolist(), positions_1T.shape[1]]
        longest = max(end - start for start, end in itertools.pairwise(bounds))
        return cls(on_device(torch.tensor(bounds, dtype=torch.int32), device or positions_1T.device), longest)

    @classmethod
    def forked(cls, trees: Sequence[tuple[int, Sequence[int]]], device: torch.device) -> "PackedRow":
        """Of trees, one behind the other: the tokens of a beginning, and those of each of its ends."""
        bounds, key_bounds, places, at = [0], [0], [], 0
        for shared, ends in trees:
            beginning = torch.arange(at, at + shared)
            at += shared
            for length in ends:
                places += [beginning, torch.arange(at, at + length)]
                at += length
                bounds.append(at)
                key_bounds.append(key_bounds[-1] + shared + length)
        longest, longest_keys = (max(end - start for start, end in itertools.pairwise(some)) for some in (bounds, key_bounds))
        bounds_N, key_bounds_N = (on_device(torch.tensor(some, dtype=torch.int32), device) for some in (bounds, key_bounds))
        return cls(bounds_N, longest, Keys(on_device(torch.cat(places), device), key_bounds_N, longest_keys))


def varlen_suits(module: Any, positions_BT: torch.Tensor) -> bool:
    """Whether the kernel can stand for `module`'s own attention: plain softmax, in half precision, causal, at most within a window."""
    hands_on = getattr(module, "_supports_attention_backend", False) and getattr(module, "_supports_flash_attn", False)
    if not hands_on or module.config._attn_implementation != "sdpa" or module.dtype not in (torch.bfloat16, torch.float16):
        return False
    config = module.config.get_text_config()
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if head > _LARGEST_HEAD or getattr(config, _CAPPED, None) is not None or len(positions_BT) != 1:
        return False
    return _kernel() is not None and torch.cuda.get_device_capability(positions_BT.device) >= _CAPABILITY


def varlen_name() -> str:
    """What transformers knows it by from now on. No mask is registered with it, so that none is built."""
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _outside_graphs())
    return _NAME


@functools.cache
def _kernel() -> Callable[..., Any] | None:
    """What computes as many heads of keys as there are: no head is repeated."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return partial(varlen_attn, enable_gqa=True) if "enable_gqa" in inspect.signature(varlen_attn).parameters else _of_torch_2_11


def _of_torch_2_11(
    query_ThD: torch.Tensor,
    key_THD: torch.Tensor,
    value_THD: torch.Tensor,
    bounds_N: torch.Tensor,
    same_N: torch.Tensor,
    longest: int,
    as_long: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
) -> torch.Tensor:
    """Its Python refuses fewer heads of keys than of queries, which the operation below it takes."""
    bounds, causal = (bounds_N, same_N, longest, as_long), window_size == (-1, 0)
    mixed_ThD: torch.Tensor
    mixed_ThD, *_ = torch.ops.torch_attn._varlen_attn(query_ThD, key_THD, value_THD, *bounds, causal, scale, list(window_size))
    return mixed_ThD


@functools.cache
def _outside_graphs() -> Callable[..., tuple[torch.Tensor, None]]:
    """What torch.compile steps over: the number and lengths of the examples are other ones in every row."""

    @torch.compiler.disable
    def attention(*args: Any, **more: Any) -> tuple[torch.Tensor, None]:
        return _attention(*args, **more)

    return attention


def _attention(
    layer: Any,
    query_1hTD: torch.Tensor,
    key_1HTD: torch.Tensor,
    value_1HTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    packed_row: PackedRow | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Called by transformers, which chooses the names of the arguments."""
    told = [name for name in _NOT_PLAIN if more.get(name) is not None]
    if packed_row is None or attention_mask is not None or dropout or told:
        raise NotImplementedError(f"{type(layer).__name__} asks for more than plain attention over a packed row ({', '.join(told)})")
    kernel = _kernel()
    assert kernel is not None
    # not one[0], whose gradient is a copy
    query_ThD, key_THD, value_THD = (one.squeeze(0).transpose(0, 1) for one in (query_1hTD, key_1HTD, value_1HTD))
    bounds = (packed_row.bounds_N, packed_row.bounds_N, packed_row.longest, packed_row.longest)
    if (keys := packed_row.keys) is not None:  # queries stand at the end of their keys: so the kernel aligns them
        bounds = (packed_row.bounds_N, keys.bounds_N, packed_row.longest, keys.longest)
        key_THD, value_THD = (gathered(one, keys.places_K) for one in (key_THD, value_THD))
    window = (sliding_window - 1 if sliding_window else -1, 0)  # tokens before and behind: causal
    mixed_ThD = kernel(query_ThD, key_THD, value_THD, *bounds, scale=scaling, window_size=window)
    return mixed_ThD[None], None


def gathered(values_THD: torch.Tensor, places_K: torch.Tensor) -> torch.Tensor:
    """(K, H, D), those at `places_K`; the gradients of one that is asked for several times are added up in float32."""
    made: torch.Tensor = _Gathered.apply(values_THD, places_K)  # type: ignore[no-untyped-call]
    return made


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values_THD: torch.Tensor, places_K: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(places_K)
        ctx.shape = values_THD.shape
        return values_THD.index_select(0, places_K)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_KHD: torch.Tensor) -> tuple[torch.Tensor, None]:
        (places_K,) = ctx.saved_tensors
        sums_THD = torch.zeros(ctx.shape, dtype=torch.float32, device=gradient_KHD.device)
        return sums_THD.index_add_(0, places_K, gradient_KHD.float()).to(gradient_KHD.dtype), None
