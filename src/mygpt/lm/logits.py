"""The last product of a language model, for chosen positions only: hidden states in, logits out.

Training wants logits where a label is and generation where a token is chosen; both skip the vocabulary product elsewhere.
Heads that do more than one product (scaling, soft-capping) are followed, so that the result equals the model's own forward pass.

Dims  N positions   D hidden   V vocabulary
"""

from collections.abc import Callable
from typing import Any

import torch

from mygpt.core.errors import Refused
from mygpt.lm.decode_layers import product, suits_product

# Settings of transformers' configurations that its heads apply to the logits, and the architectures that have them.
_MULTIPLY = ("logit_scale", "lm_head_multiplier", "output_multiplier")  # Cohere, Falcon H1, Muse
_DIVIDE = ("logits_scaling", "logits_mup_width_multiplier")  # Granite and MiniCPM 3, Inkling
_SOFT_CAP = ("final_logit_softcapping", "logits_soft_cap")  # Gemma 2 and later and nanochat, RecurrentGemma


def logits_at(module: Any, hidden_ND: torch.Tensor) -> torch.Tensor:
    """(N, V) float32."""
    return _logits_at(module, hidden_ND, lambda head, x_ND: head(x_ND).float())


def next_logits_at(module: Any, hidden_ND: torch.Tensor) -> torch.Tensor:
    """The same for the few rows whose next token is chosen, without rounding to bfloat16 on the way, where `decode_layers.product` can."""
    return _logits_at(module, hidden_ND, _product_of_few)


def only_matrix(module: Any) -> torch.nn.Parameter | None:
    """(V, D) where the logits are the product with it and nothing else."""
    head, nothing = module.get_output_embeddings(), torch.zeros(())
    if not _is_plain(head) or getattr(module, "final_logits_bias", None) is not None:
        return None
    weight_VD: torch.nn.Parameter = head.weight
    return weight_VD if _logits_at(module, nothing, lambda head, x: x) is nothing else None


def _is_plain(head: Any) -> bool:
    is_plain = type(head) is torch.nn.Linear and head.bias is None and not head._forward_hooks and not head._forward_pre_hooks
    return is_plain and "forward" not in head.__dict__


def _product_of_few(head: Any, hidden_ND: torch.Tensor) -> torch.Tensor:
    if _is_plain(head) and not torch.is_grad_enabled() and suits_product(hidden_ND, head.weight):
        return product(hidden_ND, head.weight)
    logits_NV: torch.Tensor = head(hidden_ND).float()
    return logits_NV


def _logits_at(module: Any, hidden_ND: torch.Tensor, multiply: Callable[[Any, torch.Tensor], torch.Tensor]) -> torch.Tensor:
    config = module.config.get_text_config()
    if getattr(config, "scale_decoder_outputs", False):  # T5 with tied embeddings
        hidden_ND = hidden_ND * config.d_model**-0.5
    logits_NV = multiply(module.get_output_embeddings(), hidden_ND)
    if (bias_1V := getattr(module, "final_logits_bias", None)) is not None:  # BART and its kin
        logits_NV = logits_NV + bias_1V
    if config.model_type == "mpt":  # its head ignores `logit_scale`
        return logits_NV
    factor = 1.0
    for name in _MULTIPLY:
        factor *= getattr(config, name, None) or 1.0
    for name in _DIVIDE:
        divisor = getattr(config, name, None) or 1.0
        factor *= divisor if config.model_type == "hyperclovax" else 1.0 / divisor  # which multiplies by Granite's name
    if factor != 1.0:
        logits_NV = logits_NV * factor
    for name in _SOFT_CAP:
        if cap := getattr(config, name, None):
            logits_NV = torch.tanh(logits_NV / cap) * cap
    return logits_NV


def masked_logits_at(module: Any, hidden_ND: torch.Tensor) -> torch.Tensor:
    """(N, V) float32, of a masked language model: its whole head, which does more than one product."""
    heads = _masked_heads(module)
    if len(heads) != 1:
        names = ", ".join(heads) or "none"
        raise Refused(
            f"The head of {type(_base(module)).__name__} has several parts ({names}), and the order of them is not known here.",
            fix="Choose BERT, RoBERTa or a model of their kind.",
        )
    (head,) = heads.values()
    logits_NV: torch.Tensor = head(hidden_ND).float()
    return logits_NV


def has_one_masked_head(module: Any) -> bool:
    """Whether `masked_logits_at` knows what to do."""
    return len(_masked_heads(module)) == 1


def _masked_heads(module: Any) -> dict[str, Any]:
    """By name, what stands beside the body of a masked language model."""
    base = _base(module)
    return {name: layer for name, layer in base.named_children() if layer is not base.base_model and name != "bottleneck_adapters"}


def _base(module: Any) -> Any:
    """The transformers model; with peft's layers in it, where there are some."""
    return module.get_base_model() if hasattr(module, "get_base_model") else module
