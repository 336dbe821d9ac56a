"""Choosing the next token from logits, each row by its own settings.

Order     penalties, then temperature, top-k, top-p over the renormalised rest, min-p over what then remains; renormalised. Engines
          differ in this order, and the same numbers then mean other distributions: docs/infer/sampling.md compares four.
Source    nucleus sampling (top-p): Holtzman et al. 2019, arXiv:1904.09751, section 3.1; min-p: Nguyen et al. 2024, arXiv:2407.01082,
          section 3; repetition penalty: Keskar et al. 2019, arXiv:1909.05858, section 4.1; frequency and presence penalty: as OpenAI's
          API defines them; drawing: the inverse of the cumulated probabilities
We differ the token that crosses `top_p` can be dropped (`keep_crossing=False`); the likeliest token always stays
Dims      R rows   V vocabulary
"""

import math
from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from mygpt.core.digest import digest_value
from mygpt.infer.protocols import Sampling
from mygpt.infer.repeats import occurrences
from mygpt.lm.token_choice import Choice, choose_tokens, log_sums, suits

_GREEDY_BELOW = 1e-5
_BLOCK, _SMALLEST_BLOCK = 512, 64  # tokens whose probabilities are summed first
_LIKELIEST = 1_024  # tokens that usually hold all of `top_p`: sorting these is cheaper than sorting a vocabulary

Tokens = Sequence[int]


def generators(samplings: Sequence[Sampling], prompts: Sequence[tuple[int, ...]]) -> list[torch.Generator]:
    """One stream per prompt, from the seed and the prompt itself: what ran beside it, or before, does not matter.

    The same prompt given twice with one seed gets two streams.
    """
    asked = [(sampling.seed, prompt) for sampling, prompt in zip(samplings, prompts, strict=True)]
    seeds = [digest_value([seed, number, prompt])[:15] for (seed, prompt), number in zip(asked, occurrences(asked), strict=True)]
    return [torch.Generator().manual_seed(int(seed, 16)) for seed in seeds]


def choose(
    logits_RV: torch.Tensor,
    samplings: Sequence[Sampling],
    row_generators: Sequence[torch.Generator],
    *,
    prompts: Sequence[Tokens] = (),
    answers: Sequence[Tokens] = (),
    stops: Sequence[int] = (),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (R) and their log-probabilities under the model, before anything else (R). `logits_RV` may be written to.

    `prompts` and `answers` (so far) are read by rows with penalties or `min_tokens`; `stops` cannot be chosen before `min_tokens`.
    """
    logits_RV = logits_RV.float()
    normaliser_R = log_sums(logits_RV)
    changed_RV = penalised(logits_RV, samplings, prompts, answers)
    held = [r for r, sampling in enumerate(samplings) if stops and len(answers[r] if answers else ()) < sampling.min_tokens]
    if held:  # in place: a stop that is out of reach is never the token whose logit is looked up below
        rows_K1 = torch.tensor(held, device=changed_RV.device)[:, None]
        changed_RV[rows_K1, torch.tensor(list(stops), device=changed_RV.device)] = float("-inf")
    ids_R = (_chosen_in_c if suits(logits_RV) else _chosen)(changed_RV, samplings, row_generators)
    logprobs_R = logits_RV.gather(-1, ids_R[:, None])[:, 0] - normaliser_R
    return ids_R, logprobs_R


def _chosen(logits_RV: torch.Tensor, samplings: Sequence[Sampling], row_generators: Sequence[torch.Generator]) -> torch.Tensor:
    drawing = [r for r, sampling in enumerate(samplings) if sampling.temperature >= _GREEDY_BELOW]
    ids_R = logits_RV.argmax(-1) if len(drawing) < len(samplings) else logits_RV.new_zeros(len(samplings), dtype=torch.long)
    if drawing:
        drawn_R = torch.cat([torch.rand(1, generator=row_generators[r]) for r in drawing])
        if logits_RV.is_cuda:  # which is not waited for
            drawn_R = drawn_R.pin_memory().to(logits_RV.device, non_blocking=True)
        own_RV = logits_RV if len(drawing) == len(logits_RV) else logits_RV[drawing]
        ids = _first_above(filtered_probabilities(own_RV, [samplings[r] for r in drawing]), drawn_R)
        if own_RV is logits_RV:
            return ids
        ids_R[drawing] = ids
    return ids_R


def _first_above(probabilities_RV: torch.Tensor, drawn_R: torch.Tensor) -> torch.Tensor:
    """(R), the first token whose cumulated probability is above the draw's share of all: never one of probability 0.

    Sums of blocks are cumulated, then the tokens of one block: no pass in float64 over a vocabulary.
    """
    R, V = probabilities_RV.shape
    block = math.gcd(V, _BLOCK)
    if block < _SMALLEST_BLOCK:
        probabilities_RV, block = F.pad(probabilities_RV, (0, -V % _BLOCK)), _BLOCK
    parts_RBC = probabilities_RV.view(R, -1, block)
    sums_RB = parts_RBC.sum(-1, dtype=torch.float64)
    through_RB = sums_RB.cumsum(-1)
    wanted_R1 = drawn_R[:, None].double() * through_RB[:, -1:]
    at_R1 = torch.searchsorted(through_RB, wanted_R1, right=True).clamp_max_(sums_RB.shape[1] - 1)
    before_R1 = (through_RB - sums_RB).gather(1, at_R1)
    within_RC = parts_RBC[torch.arange(R, device=at_R1.device), at_R1[:, 0]].double().cumsum(-1) + before_R1
    return (at_R1 * block + torch.searchsorted(within_RC, wanted_R1, right=True).clamp_max_(block - 1))[:, 0]


def _chosen_in_c(logits_RV: torch.Tensor, samplings: Sequence[Sampling], row_generators: Sequence[torch.Generator]) -> torch.Tensor:
    """The same: every row that draws takes one number from its generator."""
    choices = []
    for sampling, generator in zip(samplings, row_generators, strict=True):
        draws = sampling.temperature >= _GREEDY_BELOW
        drawn = float(torch.rand(1, generator=generator)) if draws else 0.0
        filters = (sampling.top_p, sampling.min_p, sampling.top_k, sampling.keep_crossing)
        choices.append(Choice(sampling.temperature if draws else 0.0, *filters, drawn))
    return choose_tokens(logits_RV.contiguous(), choices)


def penalised(
    logits_RV: torch.Tensor, samplings: Sequence[Sampling], prompts: Sequence[Tokens], answers: Sequence[Tokens]
) -> torch.Tensor:
    """Repetition looks at prompt and answer, frequency and presence at the answer only. A copy where anything changes."""
    changed_RV = logits_RV
    for r, sampling in enumerate(samplings):
        if sampling.repetition_penalty == 1.0 and sampling.frequency_penalty == sampling.presence_penalty == 0.0:
            continue
        if changed_RV is logits_RV:
            changed_RV = logits_RV.clone()
        row_V = changed_RV[r]
        if sampling.repetition_penalty != 1.0:
            seen = torch.tensor(sorted({*prompts[r], *answers[r]}), device=row_V.device)
            found = row_V[seen]
            row_V[seen] = torch.where(found > 0, found / sampling.repetition_penalty, found * sampling.repetition_penalty)
        if answers and answers[r] and (sampling.frequency_penalty or sampling.presence_penalty):
            counts = Counter(answers[r])
            said, times = torch.tensor(list(counts), device=row_V.device), torch.tensor(list(counts.values()), device=row_V.device)
            row_V[said] -= sampling.presence_penalty + sampling.frequency_penalty * times
    return changed_RV


def filtered_probabilities(logits_RV: torch.Tensor, samplings: Sequence[Sampling]) -> torch.Tensor:
    """(R, V) probabilities after temperature, top-k, top-p and min-p; every row sums to 1."""

    def column(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=logits_RV.device)[:, None]

    V = logits_RV.shape[-1]
    scaled_RV = logits_RV
    if any(sampling.temperature != 1 or sampling.top_k > 0 for sampling in samplings):  # a copy: top-k writes to it
        scaled_RV = logits_RV / column([sampling.temperature for sampling in samplings])
    if any(sampling.top_k > 0 for sampling in samplings):
        kept = [min(sampling.top_k, V) if sampling.top_k > 0 else V for sampling in samplings]
        best_RK = scaled_RV.topk(max(k for k in kept if k < V) if min(kept) < V else 1, -1).values
        for r, k in enumerate(kept):
            if k < V:
                scaled_RV[r].masked_fill_(scaled_RV[r] < best_RK[r, k - 1], float("-inf"))
    probabilities_RV = scaled_RV.softmax(-1)
    nucleus = [r for r, sampling in enumerate(samplings) if sampling.top_p < 1.0]
    if nucleus:
        limits = column([samplings[r].top_p for r in nucleus])
        crossing = torch.tensor([samplings[r].keep_crossing for r in nucleus], device=logits_RV.device)[:, None]
        probabilities_RV[nucleus] = _nucleus(probabilities_RV[nucleus], limits, crossing)
    if any(sampling.min_p > 0 for sampling in samplings):
        least_R1 = column([sampling.min_p for sampling in samplings]) * probabilities_RV.amax(-1, keepdim=True)
        probabilities_RV = probabilities_RV.masked_fill(probabilities_RV < least_R1, 0.0)
    elif not nucleus:
        return probabilities_RV
    return probabilities_RV / probabilities_RV.sum(-1, keepdim=True)


def _nucleus(probabilities_RV: torch.Tensor, top_p_R1: torch.Tensor, keep_crossing_R1: torch.Tensor) -> torch.Tensor:
    """The likeliest tokens up to `top_p` of the whole; the one that crosses it is kept or dropped, the first is always kept."""
    V = probabilities_RV.shape[-1]
    sorted_RK, order_RK = probabilities_RV.topk(min(_LIKELIEST, V), -1)
    if bool((sorted_RK.sum(-1, keepdim=True) < top_p_R1).any()):
        sorted_RK, order_RK = probabilities_RV.sort(-1, descending=True)
    through_RK = sorted_RK.cumsum(-1)
    outside_RK = torch.where(keep_crossing_R1, through_RK - sorted_RK >= top_p_R1, through_RK > top_p_R1)
    outside_RK[:, 0] = False
    return torch.zeros_like(probabilities_RV).scatter(-1, order_RK, sorted_RK.masked_fill(outside_RK, 0.0))
