"""Choosing the next token from logits.

Order     temperature, then top-k, then top-p over the renormalised rest; the token that crosses `top_p` is kept.
Source    nucleus sampling: Holtzman et al. 2019, arXiv:1904.09751, section 3.1
Dims      R rows   V vocabulary
"""

import torch

from mygpt.infer.protocols import Sampling


def generators(sampling: Sampling, rows: int) -> list[torch.Generator]:
    """One stream per row, so that a row's draws do not depend on which rows ran beside it."""
    return [torch.Generator().manual_seed((sampling.seed * 1_000_003 + row) % (1 << 63)) for row in range(rows)]


def choose(logits_RV: torch.Tensor, sampling: Sampling, row_generators: list[torch.Generator]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (R) and their log-probabilities under the model, before temperature (R)."""
    logits_RV = logits_RV.float()
    if sampling.temperature < 1e-5:
        ids_R = logits_RV.argmax(-1)
    else:
        probabilities_RV = filtered_probabilities(logits_RV, sampling)
        drawn = [torch.multinomial(p_V, 1, generator=g) for p_V, g in zip(probabilities_RV.cpu(), row_generators, strict=True)]
        ids_R = torch.cat(drawn).to(logits_RV.device)
    logprobs_R = logits_RV.gather(-1, ids_R[:, None])[:, 0] - logits_RV.logsumexp(-1)
    return ids_R, logprobs_R


def filtered_probabilities(logits_RV: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """(R, V) probabilities after temperature, top-k and top-p."""
    scaled_RV = logits_RV / sampling.temperature
    if sampling.top_k > 0:
        kth_R1 = scaled_RV.topk(min(sampling.top_k, scaled_RV.shape[-1]), -1).values[:, -1:]
        scaled_RV = scaled_RV.masked_fill(scaled_RV < kth_R1, float("-inf"))
    probabilities_RV = scaled_RV.softmax(-1)
    if sampling.top_p < 1.0:
        sorted_RV, order_RV = probabilities_RV.sort(-1, descending=True)
        before_RV = sorted_RV.cumsum(-1) - sorted_RV
        sorted_RV = sorted_RV.masked_fill(before_RV >= sampling.top_p, 0.0)
        probabilities_RV = torch.zeros_like(probabilities_RV).scatter(-1, order_RV, sorted_RV)
    return probabilities_RV / probabilities_RV.sum(-1, keepdim=True)
