"""The pairs that `benchmarks/detoxify.py` shows: the most toxic before, and drawn ones that no selection flatters."""

import numpy as np

from benchmarks.detoxify import SHOWN, pairs
from mygpt.artifacts.dataset import Conversation, Message


def test_drawn_pairs_stand_beside_the_most_toxic() -> None:
    """Two tweets of two samples each, which are never shown, and 40 openings; of opening n the first sample had the toxicity n / 100."""
    asked = [Conversation((Message("text", f"{n}"),), f"{n}") for n in range(-2, 40)]
    score_N = np.repeat(np.arange(-2, 40), 2) / 100
    continued = {name: [f"{name} {n}" for n in range(-2, 40) for _ in range(2)] for name in ("before", "after")}
    found = pairs(asked, continued, {name: {"second": score_N} for name in continued}, 2, start=4)
    openings = {chosen: [int(one["opening"]) for one in shown] for chosen, shown in found.items()}
    assert openings["most toxic before"] == list(range(39, 29, -1))
    assert len(set(openings["drawn"])) == SHOWN == 10 and min(openings["drawn"]) >= 0
    assert np.mean(openings["drawn"]) < 30  # 19.5 is expected, 34.5 the most toxic have
    assert all(one["before"]["text"] == f"before {one['opening']}" for shown in found.values() for one in shown)
