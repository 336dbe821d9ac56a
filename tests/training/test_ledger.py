"""What was counted, worked by hand."""

import pytest
import torch

from mygpt.training.flops import Flops
from mygpt.training.ledger import Ledger
from mygpt.training.machine import PeakMemory


def ledger(usd_per_hour: float | None = None) -> Ledger:
    return Ledger(Flops(per_token=100.0, per_label=10.0, per_pair=1.0), 1_000.0, PeakMemory(torch.device("cpu")), usd_per_hour)


def test_by_hand() -> None:
    """Two steps: rows of 3 and 5 tokens padded to 10, then one of 4; 12 real of 14 computed tokens in 8 seconds."""
    one = ledger(usd_per_hour=9.0)
    one.add([3, 5], trained_tokens=2, computed_tokens=10, seconds=6.0)
    one.add([4], trained_tokens=1, computed_tokens=4, seconds=2.0)
    flops = 100 * 12 + 10 * 3 + (9 + 25 + 16)
    figures = one.figures()
    assert figures.pop("peak_memory_bytes") > 0
    assert figures == {
        "steps": 2, "seconds": 8.0, "real_tokens": 12, "trained_tokens": 3, "computed_tokens": 14, "flops": flops,
        "real_tokens_per_second": 1.5, "trained_tokens_per_second": 0.4, "padding_share": round(1 - 12 / 14, 4),
        "limit_flops_per_second": 1_000.0, "share_of_limit": flops / 8 / 1_000, "usd": 0.02,
    }


def test_without_a_rate_there_is_no_price() -> None:
    assert ledger().figures()["usd"] is None


def test_goes_on_where_it_stood() -> None:
    whole, before, after = ledger(), ledger(), ledger()
    for n in range(4):
        part = before if n < 2 else after
        if n == 2:
            after.restore(before.state())
        for one in (whole, part):
            one.add([n + 1, 7], trained_tokens=n, computed_tokens=20, seconds=0.1 * n)
    assert after.state() == whole.state()


def test_the_most_memory_since_it_was_made() -> None:
    """64 MB that are written to and given back are seen; what was there before does not count as new."""
    big = torch.ones(64_000_000 // 4)
    peak = PeakMemory(torch.device("cpu"))
    start = peak.bytes()
    more = torch.ones(64_000_000 // 4)
    del more
    assert peak.bytes() - start == pytest.approx(64_000_000, rel=0.2)
    del big
