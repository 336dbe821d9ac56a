"""What a training did and what it took: counted at every step, kept in every checkpoint, stored with the artefact.

    real_tokens       of examples, without padding           trained_tokens    of those, labels
    computed_tokens   as the batches were shaped, padding and all
    share_of_limit    useful operations (`training/flops`) a second over the fastest matrix product measured here (`training/machine`)

Source     "model FLOPs utilization": Chowdhery et al. 2022, arXiv:2204.02311, section 4.1
We differ  the limit is measured on this machine, not the data sheet's
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mygpt.training.flops import Flops
from mygpt.training.machine import PeakMemory

_COUNTED = ("steps", "seconds", "real_tokens", "trained_tokens", "computed_tokens", "flops")


@dataclass
class Ledger:
    flops_by_part: Flops
    limit_flops_per_second: float  # of all devices together
    peak: PeakMemory
    usd_per_hour: float | None = None
    steps: int = 0
    seconds: float = 0.0
    real_tokens: int = 0
    trained_tokens: int = 0
    computed_tokens: int = 0
    flops: float = 0.0

    def add(self, lengths: Sequence[int], *, trained_tokens: int, computed_tokens: int, seconds: float) -> None:
        """One step: the lengths of its examples, and what they took."""
        self.steps += 1
        self.seconds += seconds
        self.real_tokens += sum(lengths)
        self.trained_tokens += trained_tokens
        self.computed_tokens += computed_tokens
        self.flops += self.flops_by_part.of(lengths, num_labels=trained_tokens)

    @property
    def usd(self) -> float | None:
        return None if self.usd_per_hour is None else round(self.seconds / 3600 * self.usd_per_hour, 6)

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _COUNTED}

    def restore(self, state: dict[str, Any]) -> None:
        """The most memory in use is that of this process alone."""
        for name in _COUNTED:
            setattr(self, name, state[name])

    def figures(self) -> dict[str, Any]:
        seconds = max(self.seconds, 1e-9)
        return {
            **self.state(),
            "seconds": round(self.seconds, 3),
            "real_tokens_per_second": round(self.real_tokens / seconds, 1),
            "trained_tokens_per_second": round(self.trained_tokens / seconds, 1),
            "padding_share": round(1 - self.real_tokens / max(self.computed_tokens, 1), 4),
            "limit_flops_per_second": self.limit_flops_per_second,
            "share_of_limit": round(self.flops / seconds / self.limit_flops_per_second, 4),
            "peak_memory_bytes": self.peak.bytes(),
            "usd": self.usd,
        }
