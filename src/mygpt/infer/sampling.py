"""Choosing the next token from logits.

Order     temperature, then top-k, then top-p over the renormalised rest; the token that crosses `top_p` is kept.
Source    nucleus sampling: Holtzman et al. 2019, arXiv:1904.09751, section 3.1; drawing: the inverse of the cumulated probabilities
Dims      R rows   V vocabulary
"""

from collections.abc import Sequence

import torch

from mygpt.core.digest import digest_value
from mygpt.infer.protocols import Sampling
from mygpt.infer.repeats import occurrences

_GREEDY_BELOW = 1e-5


def generators(sampling: Sampling, prompts: Sequence[tuple[int, ...]]) -> list[torch.Generator]:
    """One stream per prompt, from the seed and the prompt itself: what ran beside it, or before, does not matter.

    The same prompt given twice gets two streams.
    """
    seeds = [digest_value([sampling.seed, number, prompt])[:15] for prompt, number in zip(prompts, occurrences(prompts), strict=True)]
    return [torch.Generator().manual_seed(int(seed, 16)) for seed in seeds]


def choose(logits_RV: torch.Tensor, sampling: Sampling, row_generators: list[torch.Generator]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (R) and their log-probabilities under the model, before temperature (R)."""
    logits_RV = logits_RV.float()
    if sampling.temperature < _GREEDY_BELOW:
        ids_R = logits_RV.argmax(-1)
    else:
        cumulated_RV = filtered_probabilities(logits_RV, sampling).double().cumsum(-1)
        drawn_R = torch.cat([torch.rand(1, generator=g) for g in row_generators]).to(logits_RV.device)
        # the first token whose cumulated probability is above the draw: never one of probability 0
        ids_R = torch.searchsorted(cumulated_RV, drawn_R[:, None].double() * cumulated_RV[:, -1:], right=True)[:, 0]
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
        outside_RV = before_RV >= sampling.top_p
        outside_RV[:, 0] = False  # with `top_p` 0 the likeliest is left
        sorted_RV = sorted_RV.masked_fill(outside_RV, 0.0)
        probabilities_RV = torch.zeros_like(probabilities_RV).scatter(-1, order_RV, sorted_RV)
    return probabilities_RV / probabilities_RV.sum(-1, keepdim=True)
