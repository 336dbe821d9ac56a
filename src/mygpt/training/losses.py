"""Cross-entropy of the trained tokens, with the vocabulary product only where a label is.

The sum is returned, not the mean: the caller divides by the trained tokens of the whole step, so that any split into
micro-batches gives the same gradient.

Dims  B examples   T tokens   D hidden   N trained positions   V vocabulary
"""

from typing import Any

import torch
import torch.nn.functional as F

from mygpt.lm.attention import grouped_attention
from mygpt.lm.logits import logits_at


def summed_cross_entropy(module: Any, ids_BT: torch.Tensor, trained_BT: torch.Tensor) -> torch.Tensor:
    """A scalar in nats: the sum over tokens marked in `trained_BT` of -log p(token | what precedes it)."""
    with grouped_attention(module):
        hidden_BTD = module.get_decoder()(input_ids=ids_BT, use_cache=False).last_hidden_state
    is_label = trained_BT[:, 1:]
    logits_NV = logits_at(module, hidden_BTD[:, :-1][is_label])
    return F.cross_entropy(logits_NV, ids_BT[:, 1:][is_label], reduction="sum")
