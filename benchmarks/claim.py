"""What the claims share: what they run on, the cost of right answers for models too small to answer, and what came out, in three words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mygpt.artifacts.dataset import Conversation
from mygpt.artifacts.model import Model
from mygpt.core.run import Run
from mygpt.lm.chat import ChatRenderer
from mygpt.metrics.bootstrap import Interval, bootstrap_ratio
from mygpt.training.losses import summed_cross_entropy

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told"


@dataclass(frozen=True)
class Setting:
    """Where everything is; `quick` takes a few items of each: it proves the way, not the claim."""

    run: Run
    model: Model
    texts: Path  # T0 templates
    articles: Path  # plain text
    labelled: Path  # CSV with the columns `class` and `tweet`
    table_to_text: Path  # a folder with train.jsonl and test.jsonl
    quick: bool = False

    def few(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True)
class Bits:
    """Of each answer: what it costs the model, and how long it is."""

    nats: list[float]
    num_bytes: list[int]

    @property
    def per_byte(self) -> float:
        return sum(self.nats) / math.log(2) / sum(self.num_bytes)

    def over(self, other: "Bits") -> Interval:
        """This - other, in bits per byte, over the same answers: above zero is worse than the other."""
        moved = [(a - b) / math.log(2) for a, b in zip(self.nats, other.nats, strict=True)]
        return bootstrap_ratio(moved, self.num_bytes)


@torch.no_grad()
def answer_bits(module: Any, renderer: ChatRenderer, rows: Sequence[Conversation]) -> Bits:
    """Of the last answer of each row, with its stop token, as training sees it."""
    nats = []
    device = next(module.parameters()).device
    for row in rows:
        rendered = renderer.render(row)
        last = next(part for part in reversed(rendered.parts) if part.trained)
        labels = [last.start <= i < last.end for i in range(len(rendered.token_ids))]
        ids_1T, trained_1T = torch.tensor([rendered.token_ids], device=device), torch.tensor([labels], device=device)
        nats.append(float(summed_cross_entropy(module, ids_1T, trained_1T)))
    return Bits(nats, [len(row.answer.encode()) for row in rows])


def limits(interval: Interval) -> dict[str, float]:
    return {key: round(getattr(interval, key), 4) + 0.0 for key in ("estimate", "low", "high")}  # + 0.0: no negative zero


def spread_of(values: Sequence[float]) -> dict[str, Any]:
    """Over seeds."""
    mean = sum(values) / len(values)
    return {"mean": round(mean, 4), "lowest": round(min(values), 4), "highest": round(max(values), 4), "seeds": len(values)}


def told(interval: Interval | dict[str, float], digits: int = 3) -> str:
    shown = limits(interval) if isinstance(interval, Interval) else interval
    return "{0:+.{3}f} ({1:+.{3}f} to {2:+.{3}f})".format(shown["estimate"], shown["low"], shown["high"], digits).replace("-", "−")
