"""A frozen base in four bits (NF4), its scales quantised once more: about 4.1 bits a weight of the linear layers. For QLoRA.

Source     Dettmers et al. 2023, arXiv:2305.14314, section 3 (4-bit NormalFloat, double quantisation), through bitsandbytes
We differ  embeddings, norms and the head keep the machine's number format, as in bitsandbytes
"""

import importlib.util
from typing import Any

import torch

from mygpt.core.errors import UsageError


def nf4_settings(dtype: torch.dtype) -> Any:
    """For `from_pretrained(quantization_config=...)`; products are computed in `dtype`. Raises UsageError without bitsandbytes."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(
            "Four-bit weights need the package bitsandbytes, which is not installed.",
            fix="Install it (`pip install 'mygpt[quantized]'`), or set `method.weights=full`.",
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)


def keep_differentiable(module: Any) -> None:
    """Without this, bitsandbytes packs the weights at the first pass in eval mode where a CPU has AVX512-BF16. Products with packed weights
    have no backward pass: gradients end there and nothing says so. (Packing also fails for rows that are not a multiple of 64.)"""
    from bitsandbytes.nn import Linear4bit

    for part in module.modules():
        if isinstance(part, Linear4bit):
            part.support_avx512bf16_for_cpu = False


def is_quantized(module: Any) -> bool:
    return bool(getattr(module, "is_quantized", False))
