"""Cross-entropy of labels that are not the next token: of marked tokens (tags, masks), and of an answer to what an encoder read.

    summed_token_loss     a label of each marked token     the module's own forward pass: its labels are few
    summed_masked_loss    the token behind each mask       the vocabulary product only there
    summed_answer_loss    all tokens of an answer          the vocabulary product only there

Sums, not means, as in `losses`: the caller divides by the labels of the whole step, so that any split into micro-batches gives the same
gradient.

Dims  B rows   T tokens read   A tokens of the answer   L labels, or the vocabulary
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from mygpt.lm.attention import grouped_attention
from mygpt.lm.logits import has_one_masked_head
from mygpt.lm.virtual_tokens import prompt_tokens
from mygpt.training.losses import require_same_loss, summed_masked_cross_entropy, summed_target_cross_entropy

NO_LABEL = -100  # of a token, as in transformers


def summed_token_loss(module: Any, inputs: dict[str, torch.Tensor], labels: Sequence[Sequence[int]]) -> torch.Tensor:
    """A scalar in nats: the sum over tokens with a label of -log p(label). `labels[b]` may be shorter than the padded row."""
    with grouped_attention(module):
        logits_BTL = module(**inputs).logits
    return _summed(logits_BTL, labels_tensor(labels, logits_BTL.shape[1]).to(logits_BTL.device))


def summed_masked_loss(module: Any, inputs: dict[str, torch.Tensor], labels: Sequence[Sequence[int]]) -> torch.Tensor:
    """The same of a masked language model. One whose head has parts in an order that is not known here makes all its logits."""
    if not has_one_masked_head(module):
        return summed_token_loss(module, inputs, labels)
    ids_BT = inputs["input_ids"]
    right_BT = labels_tensor(labels, ids_BT.shape[1]).to(ids_BT.device)
    return summed_masked_cross_entropy(module, ids_BT, inputs["attention_mask"], right_BT, right_BT != NO_LABEL)


def summed_answer_loss(module: Any, inputs: dict[str, torch.Tensor], answers: Sequence[Sequence[int]]) -> torch.Tensor:
    """A scalar in nats: the sum over all tokens of the answers of -log p(token | text read, tokens before it).

    Virtual tokens of an encoder-decoder are put in by peft's own forward pass, which makes logits for the padding of answers, too.
    """
    ids_BT, real_BT = inputs["input_ids"], inputs["attention_mask"]
    right_BA = labels_tensor(answers, max(map(len, answers))).to(ids_BT.device)
    if not prompt_tokens(module):
        with grouped_attention(module):
            return summed_target_cross_entropy(module, ids_BT, real_BT, right_BA, right_BA != NO_LABEL)
    return _own_answer_loss(module, inputs, right_BA)


def _own_answer_loss(module: Any, inputs: dict[str, torch.Tensor], right_BA: torch.Tensor) -> torch.Tensor:
    """By the module's own forward pass."""
    shifted_BA = module.prepare_decoder_input_ids_from_labels(labels=right_BA)  # each architecture begins an answer in its own way
    with grouped_attention(module):
        logits_BAL = module(**inputs, decoder_input_ids=shifted_BA, use_cache=False).logits
    return _summed(logits_BAL, right_BA)


@torch.no_grad()
def require_own_answer_loss(module: Any, inputs: dict[str, torch.Tensor], answers: Sequence[Sequence[int]]) -> None:
    """Raises Refused when an encoder-decoder's own forward pass gives another loss than `summed_answer_loss`."""
    right_BA = labels_tensor(answers, max(map(len, answers))).to(inputs["input_ids"].device)
    own, num_labels = _own_answer_loss(module, inputs, right_BA), sum(map(len, answers))
    require_same_loss(module, ours=float(summed_answer_loss(module, inputs, answers)) / num_labels, own=float(own) / num_labels)


@torch.no_grad()
def require_own_masked_loss(module: Any, inputs: dict[str, torch.Tensor], labels: Sequence[Sequence[int]]) -> None:
    """Raises Refused when a masked language model's own forward pass gives another loss than `summed_masked_loss`."""
    num_labels = sum(label != NO_LABEL for row in labels for label in row)
    ours, own = (float(loss(module, inputs, labels)) / num_labels for loss in (summed_masked_loss, summed_token_loss))
    require_same_loss(module, ours=ours, own=own)


def labels_tensor(labels: Sequence[Sequence[int]], num_tokens: int) -> torch.Tensor:
    """(B, T), filled up with NO_LABEL on the right."""
    found_BT = torch.full((len(labels), num_tokens), NO_LABEL)
    for b, row in enumerate(labels):
        found_BT[b, : len(row)] = torch.tensor(row)
    return found_BT


def _summed(logits_BTL: torch.Tensor, right_BT: torch.Tensor) -> torch.Tensor:
    is_label = right_BT != NO_LABEL
    return F.cross_entropy(logits_BTL[is_label].float(), right_BT[is_label], reduction="sum")
