"""How well a policy knows which of two answers was preferred, on pairs that it did not learn from, before and after training.

    chosen, rejected      mean log-probability of an answer, in nats
    likelier              share of pairs whose chosen answer has the higher log-probability a token
    accuracy, margin      with a reference: share of pairs whose chosen answer has the higher implicit reward log pi - log ref, and by how
                          many nats in the mean

That chosen answers become less likely while rejected ones fall faster is usual for losses of the margin alone; it is said, because a policy
that does so far enough writes neither.

Source  implicit reward: Rafailov et al. 2023, arXiv:2305.18290, equation 5; that likelier and preferred are two things: Chen et al. 2024,
        arXiv:2405.19534; falling chosen answers: Pal et al. 2024, arXiv:2402.13228, section 3
Dims    n pairs
"""

from collections.abc import Mapping
from typing import Any

import torch

from mygpt.metrics.wilson import wilson


def measures(logprobs_n2: torch.Tensor, tokens_n2: torch.Tensor, reference_n2: torch.Tensor | None) -> dict[str, Any]:
    """Of chosen and rejected answers. `accuracy` is None where no reward differs, as before training."""
    chosen, rejected = logprobs_n2.double().mean(0).tolist()
    per_token_n2 = logprobs_n2 / tokens_n2
    found: dict[str, Any] = {"pairs": len(logprobs_n2), "chosen": chosen, "rejected": rejected}
    found |= _share("likelier", per_token_n2[:, 0] > per_token_n2[:, 1])
    if reference_n2 is None:
        return found
    rewards_n2 = logprobs_n2 - reference_n2
    margins_n = rewards_n2[:, 0] - rewards_n2[:, 1]
    found["margin"] = float(margins_n.double().mean())
    return found | ({"accuracy": None} if not margins_n.any() else _share("accuracy", margins_n > 0))


def _share(name: str, is_right_n: torch.Tensor) -> dict[str, Any]:
    share = wilson(int(is_right_n.sum()), len(is_right_n))
    return {name: share.estimate, f"{name}_interval": [share.low, share.high]}


def told(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """In words; "" where nothing was measured."""
    if before is None or after is None:
        return ""
    said = []
    if after.get("accuracy") is not None:
        low, high = after["accuracy_interval"]
        said.append(
            f"the chosen answer has the higher reward in {after['accuracy']:.2f} of {after['pairs']} pairs (95 % interval {low:.2f} to "
            f"{high:.2f}), by {after['margin']:.2f} nats in the mean"
        )
    low, high = after["likelier_interval"]
    said.append(
        f"it is the likelier one a token in {after['likelier']:.2f} of {after['pairs']} pairs ({low:.2f} to {high:.2f}; before: "
        f"{before['likelier']:.2f})"
    )
    said.append(
        f"log-probability of chosen answers {before['chosen']:.1f} before and {after['chosen']:.1f} after, of rejected ones "
        f"{before['rejected']:.1f} and {after['rejected']:.1f}"
    )
    if after["chosen"] < before["chosen"]:
        said[-1] += ": chosen answers became less likely"
    return "; ".join(said)
