"""Elo: the running score of chess, for showing only. Decide with `bradley_terry`.

After a comparison, rating += k * (outcome - expected), expected = 1 / (1 + 10^((other - rating) / 400)).

The result depends on the order of the comparisons: the same ones shuffled give other ratings, and the last ones count most. Models do not
change between comparisons, so that is an artefact. `elo_points` shows Bradley-Terry strengths on the same scale without it.

Source: Elo 1978, "The rating of chessplayers, past and present"; k = 4 and start 1,000 as in FastChat's arena.
"""

import math
from collections.abc import Mapping, Sequence

from mygpt.metrics.bradley_terry import Comparison

START = 1_000.0
SCALE = 400.0


def elo(comparisons: Sequence[Comparison], *, k: float = 4.0) -> dict[str, float]:
    """Highest first. Comparisons in the order in which they were made."""
    if not comparisons or not k > 0:
        raise ValueError(f"Elo needs comparisons and a step above 0: {len(comparisons)} comparisons, k {k}")
    ratings: dict[str, float] = {}
    for place, c in enumerate(comparisons):
        if c.first == c.second or not 0 <= c.outcome <= 1:
            raise ValueError(f"comparison {place} of {len(comparisons)}: {c.first!r} and {c.second!r}, outcome {c.outcome}")
        first, second = ratings.get(c.first, START), ratings.get(c.second, START)
        change = k * c.weight * (c.outcome - 1 / (1 + 10 ** ((second - first) / SCALE)))
        ratings[c.first], ratings[c.second] = first + change, second - change
    return dict(sorted(ratings.items(), key=lambda pair: -pair[1]))


def elo_points(strengths: Mapping[str, float]) -> dict[str, float]:
    """Bradley-Terry strengths (logits) in points: 400 points are odds of ten to one, the average is 1,000."""
    return {name: START + SCALE * strength / math.log(10) for name, strength in strengths.items()}
