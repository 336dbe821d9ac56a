"""Cross-entropy of labels that are not the next token: of marked tokens (tags, masks), and of an answer to what an encoder read.

Sums, not means, as in `losses`: the caller divides by the labels of the whole step, so that any split into micro-batches gives the same
gradient.

Dims  B rows   T tokens read   A tokens of the answer   L labels, or the vocabulary
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from mygpt.lm.attention import grouped_attention

NO_LABEL = -100  # of a token, as in transformers


def summed_token_loss(module: Any, inputs: dict[str, torch.Tensor], labels: Sequence[Sequence[int]]) -> torch.Tensor:
    """A scalar in nats: the sum over tokens with a label of -log p(label). `labels[b]` may be shorter than the padded row."""
    with grouped_attention(module):
        logits_BTL = module(**inputs).logits
    return _summed(logits_BTL, labels_tensor(labels, logits_BTL.shape[1]).to(logits_BTL.device))


def summed_answer_loss(module: Any, inputs: dict[str, torch.Tensor], answers: Sequence[Sequence[int]]) -> torch.Tensor:
    """A scalar in nats: the sum over all tokens of the answers of -log p(token | text read, tokens before it)."""
    right_BA = labels_tensor(answers, max(map(len, answers))).to(inputs["input_ids"].device)
    shifted_BA = module.prepare_decoder_input_ids_from_labels(labels=right_BA)  # each architecture begins an answer in its own way
    with grouped_attention(module):
        logits_BAL = module(**inputs, decoder_input_ids=shifted_BA, use_cache=False).logits
    return _summed(logits_BAL, right_BA)


def labels_tensor(labels: Sequence[Sequence[int]], num_tokens: int) -> torch.Tensor:
    """(B, T), filled up with NO_LABEL on the right."""
    found_BT = torch.full((len(labels), num_tokens), NO_LABEL)
    for b, row in enumerate(labels):
        found_BT[b, : len(row)] = torch.tensor(row)
    return found_BT


def _summed(logits_BTL: torch.Tensor, right_BT: torch.Tensor) -> torch.Tensor:
    is_label = right_BT != NO_LABEL
    return F.cross_entropy(logits_BTL[is_label].float(), right_BT[is_label], reduction="sum")
