"""A frozen base in four bits (NF4), its scales quantised once more: about 4.1 bits a weight of the linear layers. For QLoRA.

Source     Dettmers et al. 2023, arXiv:2305.14314, section 3 (4-bit NormalFloat, double quantisation), through bitsandbytes
We differ  embeddings, norms and the head keep the machine's number format, as in bitsandbytes
"""

import importlib.util
from typing import Any

import torch

from mygpt.core.errors import Refused, UsageError

_BLOCK = 64  # numbers that share a scale


def nf4_settings(dtype: torch.dtype) -> Any:
    """For `from_pretrained(quantization_config=...)`; products are computed in `dtype`. Raises UsageError without bitsandbytes."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(
            "Four-bit weights need the package bitsandbytes, which is not installed.",
            fix="Install it (`pip install 'mygpt[quantized]'`), or set `method.weights=full`.",
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)


def require_whole_blocks(module: Any) -> None:
    """Raises Refused where a row of a four-bit matrix is no whole number of blocks: bitsandbytes cannot multiply it on a CPU."""
    from bitsandbytes.nn import Linear4bit

    for name, part in module.named_modules():
        if isinstance(part, Linear4bit) and part.in_features % _BLOCK and part.weight.device.type == "cpu":
            raise Refused(
                f"{name} reads {part.in_features} numbers, and in four bits a CPU multiplies multiples of {_BLOCK} only.",
                fix="Set `method.weights=full`, or use a GPU.",
            )


def is_quantized(module: Any) -> bool:
    return bool(getattr(module, "is_quantized", False))
