"""What a pair says beside which of its answers is the better one; all of it stands in its row.

    margin (a column)         places between the two in a ranking, or the grade of a rating
    score_margin (a fact)     by how much the chosen answer scores higher, in the unit of the scores, as decimal text
    tie (a fact)              nobody prefers either
    probability (a fact)      that the chosen one is the better, as decimal text: many raters, or a judge's own
"""

import math

from mygpt.artifacts.dataset import Preference
from mygpt.core.errors import Refused

_NO = ("", "false", "no", "0")


def is_tie(row: Preference) -> bool:
    return row.facts.get("tie", "").strip().lower() not in _NO


def probability_of(row: Preference) -> float:
    """That the chosen answer is the better one; of a tie one half. Raises Refused for what is no probability."""
    if is_tie(row):
        return 0.5
    told = row.facts.get("probability")
    if told is None:
        return 1.0
    found = _number(told)
    if not 0 <= found <= 1:
        raise Refused(
            f"The pair {_named(row)} says that its chosen answer is the better with the probability `{told}`.",
            fix="Give the fact `probability` as a number from 0 to 1, for example 0.8, or leave it out.",
        )
    return found


def score_margin_of(row: Preference) -> float | None:
    """None where the row has no scores. Raises Refused for what is no number of 0 or more."""
    told = row.facts.get("score_margin")
    if told is None:
        return None
    found = _number(told)
    if not 0 <= found < math.inf:
        raise Refused(
            f"The pair {_named(row)} says that its chosen answer scores `{told}` higher.",
            fix="Give the fact `score_margin` as a number of 0 or more, for example 1.5, or leave it out.",
        )
    return found


def _number(told: str) -> float:
    """Not a number where it is none: that is within no bounds."""
    try:
        return float(told)
    except ValueError:
        return math.nan


def _named(row: Preference) -> str:
    return row.id or repr(row.chosen[:40])
