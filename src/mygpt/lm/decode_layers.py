"""Layers shaped as Llama's for a few new tokens, in C, all in one call (`decode_layers.c`); and the product with the vocabulary.

torch and Python spend half of a decoding step between the operations. In C, threads go through the layers together, and a step takes about
as long as reading weights and cache from memory.

Source    decode_layers.c, tile_products.h (bfloat16), float_products.h (float32)
We differ in bfloat16 what lies between a norm and the next sum of hidden states is float32, where transformers rounds after every operation
Dims      N rows   D hidden   B trees   Q new tokens of each   H key/value heads   S slots   E head size   F, K width of a product
"""

import ctypes
import functools
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from mygpt.lm.c_library import c_library
from mygpt.lm.processor import has_cpu_flag

MOST_ROWS = 128  # with more, products are large enough for torch (tile_products.h, MOST_TILES)
_MOST_ROWS_BY_VECTORS = 64  # without tiles torch's products catch up sooner
_HEADERS = {torch.bfloat16: ("tile_products.h", "avx512_bf16"), torch.float32: ("float_products.h", "avx512f")}  # and what they need
_MOST_E = 128
_POINTER, _COUNT, _FACTOR, _FLAG = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int32
_WEIGHTS, _UPDATES, _UPDATE = 16, 7, 4  # of a layer: tensors, updates beside them, and words of each (decode_layers.c, Layer)
_RANKS = 16  # a rank is a multiple of it


class OpenLane(NamedTuple):
    """Caches of neighbouring trees of like length, with room behind the `length` slots that are taken, by layer."""

    length: int
    keys_BHSE: Sequence[torch.Tensor]
    values_BHSE: Sequence[torch.Tensor]


class Update(NamedTuple):
    """What stands beside a weight: scaling * up_FR @ down_RK."""

    down_RK: torch.Tensor
    up_FR: torch.Tensor
    scaling: float


class LayerWeights(NamedTuple):
    """As a linear layer of torch holds them, (out, in); biases may be None. `updates`: beside q, k, v, o, gate, up, down."""

    norm: torch.Tensor
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    o: torch.Tensor
    q_bias: torch.Tensor | None
    k_bias: torch.Tensor | None
    v_bias: torch.Tensor | None
    o_bias: torch.Tensor | None
    norm_after: torch.Tensor
    gate: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor
    gate_bias: torch.Tensor | None
    up_bias: torch.Tensor | None
    down_bias: torch.Tensor | None
    updates: tuple[Update | None, ...] = (None,) * _UPDATES

    @property
    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        return self[:-1]

    @property
    def updated(self) -> tuple[torch.Tensor, ...]:
        return self.q, self.k, self.v, self.o, self.gate, self.up, self.down


class _Lane(ctypes.Structure):
    _fields_ = [("first_tree", _COUNT), ("length", _COUNT)]


class _Mask(ctypes.Structure):
    _fields_ = [("added", _POINTER), ("by_tree", _COUNT), ("by_token", _COUNT)]


class _Step(ctypes.Structure):
    _fields_ = [
        *((name, _COUNT) for name in ("layers", "N", "Q", "D", "H", "G", "E", "F", "lanes", "kinds")),
        *((name, _FACTOR) for name in ("epsilon", "scale")),
        *((name, _FLAG) for name in ("threads", "has_tiles")),
        *((name, _POINTER) for name in ("hidden", "cosines", "sines", "layer", "kept", "lane", "mask")),
    ]


def most_rows(dtype: torch.dtype) -> int:
    """How many rows of this format `decode_layers` takes on this machine; 0 where it cannot be had."""
    if _library(dtype) is None:
        return 0
    return MOST_ROWS if has_tiles(dtype) else _MOST_ROWS_BY_VECTORS


@functools.cache
def has_tiles(dtype: torch.dtype) -> bool:
    """Whether products run on AMX tiles: there are some for the format, the processor has them and the system gives leave."""
    return has_cpu_flag("amx_bf16") and bool(_library(dtype).tiles_allowed())


def decode_layers(
    hidden_BQD: torch.Tensor,
    angles: tuple[torch.Tensor, torch.Tensor],
    layers: Sequence[LayerWeights],
    lanes: Sequence[OpenLane],
    masks: Sequence[torch.Tensor],
    kinds: Sequence[int],
    *,
    epsilon: float,
    scale: float,
) -> torch.Tensor:
    """Hidden states after the last layer (B, Q, D); the new tokens' keys and values are written behind those of `lanes`.

    `angles`: cosines and sines (B, Q, E). `masks`: (B, 1, Q, S), 0 where a token may look; `kinds`: which of them is each layer's.
    """
    (B, Q, D), dtype = hidden_BQD.shape, hidden_BQD.dtype
    H, E = lanes[0].keys_BHSE[0].shape[1], lanes[0].keys_BHSE[0].shape[3]
    made_BQD = hidden_BQD.contiguous().clone()
    cosines, sines = (one.expand(B, Q, E).contiguous() for one in angles)
    weights = (_COUNT * ((_WEIGHTS + 1 + _UPDATES * _UPDATE) * len(layers)))()
    weights[:] = [word for layer, kind in zip(layers, kinds, strict=True) for word in _words(layer, kind)]
    kept = [
        at
        for i in range(len(layers))
        for lane in lanes
        for at in (lane.keys_BHSE[i].data_ptr(), lane.values_BHSE[i].data_ptr(), lane.keys_BHSE[i].shape[2])
    ]
    first_trees = [sum(len(lane.keys_BHSE[0]) for lane in lanes[:i]) for i in range(len(lanes))]
    step = _Step(
        *(len(layers), B * Q, Q, D, H, len(layers[0].q) // (H * E), E, len(layers[0].gate), len(lanes), len(masks)),
        *(epsilon, scale, torch.get_num_threads(), has_tiles(dtype)),
        *(one.data_ptr() for one in (made_BQD, cosines, sines)),
        ctypes.addressof(weights),
        ctypes.addressof(held := (_COUNT * len(kept))(*kept)),
        ctypes.addressof(places := (_Lane * len(lanes))(*map(_Lane, first_trees, (lane.length for lane in lanes)))),
        ctypes.addressof(looks := (_Mask * len(masks))(*(_Mask(m.data_ptr(), m.stride(0), m.stride(2)) for m in masks))),
    )
    if _library(dtype).decode_layers(ctypes.byref(step)):
        raise MemoryError(f"no memory for a step of {B * Q} rows")
    del held, places, looks  # until here they are pointed at
    return made_BQD


def suits(layers: Sequence[LayerWeights], H: int, E: int) -> bool:
    """Whether `decode_layers` can multiply with these: one format that it takes, on a CPU, all layers of one shape, of whole tiles."""
    dtype = layers[0].q.dtype
    if not most_rows(dtype):
        return False
    shapes = [None if one is None else one.shape for one in layers[0].tensors]
    for layer in layers:
        for one, shape in zip(layer.tensors, shapes, strict=True):
            if one is None:
                if shape is not None:
                    return False
            elif one.shape != shape or one.dtype != dtype or not one.is_cpu or not one.is_contiguous():
                return False
        if not all(update is None or _suits(update, weight) for update, weight in zip(layer.updates, layer.updated, strict=True)):
            return False
    first = layers[0]
    width, D, F = len(first.q), len(first.o), len(first.gate)
    is_square = first.q.shape[1] == first.gate.shape[1] == len(first.down) == D and first.o.shape[1] == width and first.down.shape[1] == F
    return is_square and len(first.k) == H * E and width % (H * E) == 0 and not E % 32 and E <= _MOST_E and not any(n % 32 for n in (D, F))


def product(x_NK: torch.Tensor, weight_FK: torch.Tensor) -> torch.Tensor:
    """x W' in float32 (N, F): what a linear layer in bfloat16 rounds is kept. Only where `suits_product`."""
    (N, K), F = x_NK.shape, len(weight_FK)
    made_NF = torch.empty(N, F)
    x_NK = x_NK.contiguous()
    pointers = (made_NF.data_ptr(), x_NK.data_ptr(), weight_FK.data_ptr())
    if _library(x_NK.dtype).product(*pointers, N, K, F, torch.get_num_threads(), has_tiles(x_NK.dtype)):
        raise MemoryError(f"no memory for a product of {N} rows")
    return made_NF


def suits_product(x_NK: torch.Tensor, weight_FK: torch.Tensor) -> bool:
    is_plain = x_NK.dtype == weight_FK.dtype and x_NK.is_cpu and weight_FK.is_cpu and weight_FK.is_contiguous()
    return is_plain and not x_NK.shape[1] % 32 and not len(weight_FK) % 16 and 0 < len(x_NK) <= most_rows(x_NK.dtype)


def _suits(update: Update, weight_FK: torch.Tensor) -> bool:
    down_RK, up_FR, _ = update
    (F, K), R = weight_FK.shape, len(down_RK)
    is_plain = all(one.dtype == weight_FK.dtype and one.is_cpu and one.is_contiguous() for one in (down_RK, up_FR))
    return is_plain and R > 0 and not R % _RANKS and down_RK.shape[1] == K and up_FR.shape == (F, R)


def _words(layer: LayerWeights, kind: int) -> Iterator[int]:
    """As `Layer` of decode_layers.c lies in memory."""
    yield from map(_address, layer.tensors)
    yield kind
    for update in layer.updates:
        if update is None:
            yield from (0,) * _UPDATE
        else:
            yield from (update.down_RK.data_ptr(), update.up_FR.data_ptr(), len(update.down_RK), _bits(update.scaling))


@functools.cache
def _bits(number: float) -> int:
    """Of a double, as an integer."""
    return int.from_bytes(struct.pack("=d", number), sys.byteorder, signed=True)


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


@functools.cache
def _library(dtype: torch.dtype) -> Any:
    """The compiled functions by name; None where they cannot be had for this format."""
    if dtype not in _HEADERS or not has_cpu_flag(_HEADERS[dtype][1]):
        return None
    library = c_library("decode_layers.c", defined=(f'PRODUCTS="{_HEADERS[dtype][0]}"',))
    if library is not None:
        library.decode_layers.argtypes = [ctypes.POINTER(_Step)]
        library.product.argtypes = [_POINTER] * 3 + [_COUNT] * 3 + [_FLAG] * 2
    return library
