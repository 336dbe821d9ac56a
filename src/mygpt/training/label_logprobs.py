"""Log-probabilities of given tokens, with gradients: what preferences and rewards move.

    label_logprobs(module, ids_BT, is_label_BT)    of each marked token given what precedes it, row after row
    logprobs_of(module, hidden_ND, labels_N)       the same, from hidden states at hand
    logprobs_and_entropies_of(module, ...)         with how undecided each next token is, from one product
    by_row(values_N, is_label_BT)                  (B, L), in rows again, zero behind each row's last
    summed_by_row(values_N, is_label_BT)           (B), a row's sum

The vocabulary product is made only where a label is. Beyond `chunk_labels` the logits of a chunk are dropped and made again for their
gradient: what weighs each token is known later than its probability, so a gradient cannot be taken at once, as `losses` does.

Source     ours; recomputing instead of keeping: Chen et al. 2016, arXiv:1604.06174
Dims       B sequences   T tokens   D hidden   N labels   L labels of the row with most   V vocabulary
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from mygpt.lm.logits import logits_at
from mygpt.training.losses import hidden_states


def label_logprobs(
    module: Any,
    ids_BT: torch.Tensor,
    is_label_BT: torch.Tensor,
    *,
    positions_BT: torch.Tensor | None = None,
    temperature: float = 1.0,
    chunk_labels: int | None = None,
) -> torch.Tensor:
    """(N) float32 in nats. A row's first token has nothing before it and cannot be a label."""
    hidden_BTD = hidden_states(module, ids_BT, positions_BT)
    is_label = is_label_BT[:, 1:]
    labels_N = ids_BT[:, 1:][is_label]
    return logprobs_of(module, hidden_BTD[:, :-1][is_label], labels_N, temperature=temperature, chunk_labels=chunk_labels)


def logprobs_of(
    module: Any,
    hidden_ND: torch.Tensor,
    labels_N: torch.Tensor,
    *,
    temperature: float = 1.0,
    chunk_labels: int | None = None,
) -> torch.Tensor:
    """(N) float32 in nats, of the distribution at this temperature."""

    def of_chunk(hidden_ND: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
        logits_NV = _logits(module, hidden_ND, temperature)
        if logits_NV.is_cuda:  # the same in half as many passes over memory
            return -F.cross_entropy(logits_NV, labels_N, reduction="none")
        return logits_NV.gather(-1, labels_N[:, None])[:, 0] - logits_NV.logsumexp(-1)

    return _in_chunks(of_chunk, chunk_labels, hidden_ND, labels_N)


def logprobs_and_entropies_of(
    module: Any,
    hidden_ND: torch.Tensor,
    labels_N: torch.Tensor,
    *,
    temperature: float = 1.0,
    chunk_labels: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(N) and (N) float32 in nats, both of the distribution at this temperature: the vocabulary product is made once for the two."""

    def of_chunk(hidden_ND: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
        logits_NV = _logits(module, hidden_ND, temperature)
        normaliser_N = logits_NV.logsumexp(-1)
        logprobs_N = logits_NV.gather(-1, labels_N[:, None])[:, 0] - normaliser_N
        # -sum p log p with log p = logit - normaliser; a dot product needs no third (N, V)
        entropies_N = normaliser_N - torch.linalg.vecdot(logits_NV.softmax(-1), logits_NV)
        return torch.stack((logprobs_N, entropies_N))

    logprobs_N, entropies_N = _in_chunks(of_chunk, chunk_labels, hidden_ND, labels_N)
    return logprobs_N, entropies_N


def _logits(module: Any, hidden_ND: torch.Tensor, temperature: float) -> torch.Tensor:
    logits_NV = logits_at(module, hidden_ND)
    return logits_NV if temperature == 1.0 else logits_NV / temperature


def _in_chunks(of_chunk: Callable[..., torch.Tensor], chunk_labels: int | None, *tensors: torch.Tensor) -> torch.Tensor:
    """`of_chunk` of all labels: (..., N)."""
    if chunk_labels is None or len(tensors[0]) <= chunk_labels:
        return of_chunk(*tensors)
    parts = zip(*(tensor.split(chunk_labels) for tensor in tensors), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([of_chunk(*part) for part in parts], dim=-1)
    return torch.cat([checkpoint(of_chunk, *part, use_reentrant=False) for part in parts], dim=-1)


def by_row(values_N: torch.Tensor, is_label_BT: torch.Tensor) -> torch.Tensor:
    """(B, L), each row's values from its left end on, zero behind them."""
    lengths_B = is_label_BT.sum(1)
    is_there_BL = torch.arange(int(lengths_B.max()), device=values_N.device) < lengths_B[:, None]
    made_BL = values_N.new_zeros(is_there_BL.shape)
    return made_BL.masked_scatter(is_there_BL, values_N)


def summed_by_row(values_N: torch.Tensor, is_label_BT: torch.Tensor) -> torch.Tensor:
    """(B)"""
    rows_N = torch.arange(len(is_label_BT), device=values_N.device).repeat_interleave(is_label_BT.sum(1))
    return values_N.new_zeros(len(is_label_BT)).index_add(0, rows_N, values_N)
