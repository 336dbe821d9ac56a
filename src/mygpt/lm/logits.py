"""The last product of a language model, for chosen positions only: hidden states in, logits out.

Training wants logits where a label is and generation where a token is chosen; both skip the vocabulary product elsewhere.
Heads that do more than one product (scaling, soft-capping) are followed, so that the result equals the model's own forward pass.

Dims  N positions   D hidden   V vocabulary
"""

from typing import Any

import torch


def logits_at(module: Any, hidden_ND: torch.Tensor) -> torch.Tensor:
    """(N, V) float32."""
    logits_NV: torch.Tensor = module.get_output_embeddings()(hidden_ND).float()
    config = module.config
    if getattr(config, "logits_scaling", None):  # Granite divides
        logits_NV = logits_NV / config.logits_scaling
    if getattr(config, "logit_scale", None):  # Cohere multiplies
        logits_NV = logits_NV * config.logit_scale
    if getattr(config, "final_logit_softcapping", None):  # Gemma 2
        logits_NV = torch.tanh(logits_NV / config.final_logit_softcapping) * config.final_logit_softcapping
    return logits_NV
