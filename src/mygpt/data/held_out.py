"""Held-out rows stay apart from training rows: none may share more than a stated token Jaccard, in question or in answer."""

from collections.abc import Sequence

from mygpt.artifacts.dataset import Conversation, Dropped
from mygpt.metrics.jaccard import token_jaccard


def keep_apart(
    held_out: Sequence[Conversation], training: Sequence[Conversation], *, max_overlap: float
) -> tuple[list[Conversation], list[Dropped]]:
    """(rows that are far enough from all of `training`, the others with their nearest training row)."""
    apart, too_close = [], []
    for row in held_out:
        near = next((t for t in training if closeness(row, t) > max_overlap), None)
        if near is None:
            apart.append(row)
        else:
            too_close.append(Dropped("too close to a training row", row, detail=near.question))
    return apart, too_close


def closeness(a: Conversation, b: Conversation) -> float:
    """The larger token Jaccard of the two questions and of the two answers."""
    return max(token_jaccard(a.question, b.question), token_jaccard(a.answer, b.answer))
