"""Cross-entropy of the trained tokens, with the vocabulary product only where a label is.

The sum is returned, not the mean: the caller divides by the trained tokens of the whole step, so that any split into
micro-batches gives the same gradient.

Dims  B examples   T tokens   D hidden   N trained positions   V vocabulary
"""

from typing import Any

import torch
import torch.nn.functional as F

from mygpt.core.errors import Refused
from mygpt.lm.attention import grouped_attention
from mygpt.lm.logits import logits_at

_NATS_APART = 0.02  # a token, beside 2 %: rounding of bfloat16 logits stays below, a head that scales or caps does not


def summed_cross_entropy(module: Any, ids_BT: torch.Tensor, trained_BT: torch.Tensor) -> torch.Tensor:
    """A scalar in nats: the sum over tokens marked in `trained_BT` of -log p(token | what precedes it)."""
    with grouped_attention(module):
        hidden_BTD = module.get_decoder()(input_ids=ids_BT, use_cache=False).last_hidden_state
    is_label = trained_BT[:, 1:]
    logits_NV = logits_at(module, hidden_BTD[:, :-1][is_label])
    return F.cross_entropy(logits_NV, ids_BT[:, 1:][is_label], reduction="sum")


@torch.no_grad()
def require_own_loss(module: Any, ids_BT: torch.Tensor, trained_BT: torch.Tensor) -> None:
    """Raises Refused when the model's own forward pass gives another loss: its head does something that `logits_at` does not know."""
    num_trained = int(trained_BT[:, 1:].sum())
    ours = float(summed_cross_entropy(module, ids_BT, trained_BT)) / num_trained
    logits_BTV = module(input_ids=ids_BT, use_cache=False).logits[:, -ids_BT.shape[1] :].float()  # peft gives a prompt's own ones too
    own = float(F.cross_entropy(logits_BTV[:, :-1][trained_BT[:, 1:]], ids_BT[:, 1:][trained_BT[:, 1:]]))
    if abs(ours - own) > _NATS_APART + 0.02 * own:
        raise Refused(
            f"{type(module).__name__} computes its logits in a way that is not known here (loss {own:.3f} by itself, {ours:.3f} here).",
            fix="Choose a model of another architecture.",
        )
