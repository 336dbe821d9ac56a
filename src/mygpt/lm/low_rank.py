"""Products of one input with several weights that carry low-rank updates, as one step of autograd; and the updates written in, for a while.

    projected(x, layers)        y_i = x W_i' + s_i (x A_i') B_i'
    with written_in(module):    W_i + s_i B_i A_i stand in place of the layers: sampling costs what the base does

peft computes each update in four operations, and autograd adds the gradients of x up one by one. Here the products with all A_i are one,
updates are added to y by the product itself, and so are the gradients of x.

Source    Hu et al. 2021, arXiv:2106.09685, equation 3; the order of products: Unsloth's description of its kernels
Dims      N tokens   D width of x   F width of a y   R ranks
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd.function import once_differentiable


def projected(x: torch.Tensor, layers: Sequence[Any]) -> list[torch.Tensor]:
    """What each of `layers` (linear modules, plain or peft's) makes of `x`."""
    parts = [_low_rank(layer, x) for layer in layers]
    if all(part is not None for part in parts):
        scalings = tuple(part[-1] for part in parts if part is not None)
        tensors = [tensor for part in parts if part is not None for tensor in part[:-1]]
        return list(_LowRankProducts.apply(x, scalings, *tensors))  # type: ignore[no-untyped-call]
    return [layer(x) for layer in layers]


@contextmanager
def written_in(module: Any) -> Iterator[None]:
    """For the time of the block every linear layer of `module` with one plain LoRA adapter at work is a single matrix, rounded once to the
    weights' own format; other layers stay as they are. Afterwards everything is as before, to the bit. Costs a second copy of those
    weights meanwhile, and no gradients flow into the updates.
    """
    swapped = []
    try:
        for name, layer in list(module.named_modules()):
            found = plain_update(layer)
            if found is None:
                continue
            weight_FD, _, a_RD, b_FR, scaling = found
            with torch.no_grad():
                merged_FD = torch.addmm(weight_FD.float(), b_FR.float(), a_RD.float(), alpha=scaling).to(weight_FD.dtype)
            outer, _, child = name.rpartition(".")
            parent = module.get_submodule(outer)
            swapped.append((parent, child, layer, weight_FD.data))
            layer.base_layer.weight.data = merged_FD
            setattr(parent, child, layer.base_layer)
        yield
    finally:
        for parent, child, layer, weight_FD in swapped:
            layer.base_layer.weight.data = weight_FD
            setattr(parent, child, layer)


def written_in_bytes(module: Any) -> int:
    """Of that second copy."""
    found = (plain_update(layer) for layer in module.modules())
    return sum(update[0].numel() * update[0].element_size() for update in found if update is not None)


def _low_rank(layer: Any, x: torch.Tensor) -> tuple[Any, ...] | None:
    """As `plain_update`, where `x` has the format of all of it."""
    found = plain_update(layer)
    if found is None:
        return None
    weight_FD, _, a_RD, b_FR, _ = found
    return found if x.dtype == a_RD.dtype == b_FR.dtype == weight_FD.dtype else None


def plain_update(layer: Any) -> tuple[Any, ...] | None:
    """(weight, bias, A, B, scaling) of a linear layer with one plain LoRA adapter at work; None for anything else."""
    if type(layer) is not _lora_linear() or layer.disable_adapters or layer.merged or len(active := layer.active_adapters) != 1:
        return None
    parts, (name,) = layer._modules, active  # not by attribute, which torch looks up slowly: a decoding step asks 210 layers
    down, up, dropout = (parts[part]._modules.get(name) for part in ("lora_A", "lora_B", "lora_dropout"))
    if down is None or up is None or name in layer.lora_variant or layer._forward_pre_hooks or layer._forward_hooks:
        return None
    base = parts["base_layer"]
    drops = dropout is not None and dropout.training and type(dropout) is not torch.nn.Identity
    if type(base) is not torch.nn.Linear or drops or layer.lora_bias.get(name):
        return None
    weight, bias = base._parameters["weight"], base._parameters["bias"]
    if weight is None or weight.requires_grad:
        return None
    return weight, bias, down._parameters["weight"], up._parameters["weight"], layer.scaling[name]


@functools.cache
def _lora_linear() -> Any:
    from peft.tuners.lora.layer import Linear

    return Linear


class _LowRankProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scalings: tuple[float, ...], *tensors: torch.Tensor) -> Any:
        """`tensors`: weight, bias (or None), A, B of every layer."""
        weights, biases, downs, ups = tensors[0::4], tensors[1::4], tensors[2::4], tensors[3::4]
        x_ND = x.reshape(-1, x.shape[-1])
        down_RD = downs[0] if len(downs) == 1 else torch.cat(downs)
        inner_NR = x_ND @ down_RD.T
        made = []
        for weight_FD, bias_F, up_FR, scaling, inner in zip(weights, biases, ups, scalings, _split(inner_NR, downs), strict=True):
            y_NF = torch.nn.functional.linear(x_ND, weight_FD, bias_F).addmm_(inner, up_FR.T, alpha=scaling)
            made.append(y_NF.view(*x.shape[:-1], -1))
        ctx.save_for_backward(x, inner_NR, down_RD, *weights, *ups)
        ctx.scalings, ctx.ranks = scalings, [len(down) for down in downs]
        return tuple(made)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_made: torch.Tensor) -> Any:
        x, inner_NR, down_RD, *rest = ctx.saved_tensors
        weights, ups = rest[: len(ctx.ranks)], rest[len(ctx.ranks) :]
        x_ND = x.reshape(-1, x.shape[-1])
        d_inner_NR = torch.empty_like(inner_NR)
        d_x_ND = torch.empty_like(x_ND) if ctx.needs_input_grad[0] else None
        d_ups, first = [], 0
        for i, (d_y, weight_FD, up_FR, scaling, rank) in enumerate(zip(d_made, weights, ups, ctx.scalings, ctx.ranks, strict=True)):
            d_y_NF, own = d_y.reshape(len(x_ND), -1), slice(first, first + rank)
            scaled_FR = up_FR * scaling
            d_inner_NR[:, own] = d_y_NF @ scaled_FR
            d_ups.append((d_y_NF.T @ inner_NR[:, own]).mul_(scaling))
            if d_x_ND is not None:
                d_x_ND.addmm_(d_y_NF, weight_FD, beta=int(i > 0))
            first += rank
        d_downs = (d_inner_NR.T @ x_ND).split(ctx.ranks)
        if d_x_ND is not None:
            d_x_ND.addmm_(d_inner_NR, down_RD)
        per_layer = [grad for d_down, d_up in zip(d_downs, d_ups, strict=True) for grad in (None, None, d_down, d_up)]
        return None if d_x_ND is None else d_x_ND.view_as(x), None, *per_layer


def _split(inner_NR: torch.Tensor, downs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    return inner_NR.split([len(down) for down in downs], dim=1)
