"""Bradley-Terry from raters who are not all to be trusted: strengths of what was compared, and a reliability of each rater, together.

    P(rater r says that i beats j) = eta_r * sigmoid(s_i - s_j) + (1 - eta_r) * sigmoid(s_j - s_i)

eta 1: says what the strengths say; 1/2: a coin, whose votes count for nothing; 0: says the opposite, and is read the other way round.
A tie is half a vote for each. Whatever is compared many times can have a strength: systems, or a dozen texts. Three answers to one prompt
cannot, and their strengths would follow whoever is best liked; for single pairs see `dawid_skene.pair_reliability`.

Maximised is the likelihood with two priors: normal on the strengths (`l2`, as in `bradley_terry`), and `prior_decisions` votes of every
rater, `prior_right` of them right. By expectation maximisation: each vote was meant as it stands with probability
q = eta * sigmoid(d) / (eta * sigmoid(d) + (1 - eta) * sigmoid(-d)); then eta is the share of q, and the strengths are a Bradley-Terry fit
in which the vote counts q for the winner and 1 - q for the loser.

Source: Chen, Bennett, Collins-Thompson and Horvitz 2013, "Pairwise ranking aggregation in a crowdsourced setting" (Crowd-BT).
We differ: the normal prior where they have a virtual object that everything is compared with; expectation maximisation instead of gradients
in turns; no choice of the next pair to ask about.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mygpt.metrics.bradley_terry import L2, Comparison, fit_strengths, linked_names
from mygpt.metrics.dawid_skene import PRIOR_DECISIONS, PRIOR_RIGHT, Vote, check_votes

_MAX_STEPS = 1_000  # where systems are equal nothing tells raters apart, and they drift slowly
_CLOSE_ENOUGH = 1e-6


@dataclass(frozen=True)
class CrowdStrengths:
    strengths: dict[str, float]  # logits, strongest first; they sum to 0
    raters: dict[str, float]  # eta, in the order in which raters come


def crowd_bradley_terry(
    votes: Sequence[Vote], *, l2: float = L2, prior_decisions: float = PRIOR_DECISIONS, prior_right: float = PRIOR_RIGHT
) -> CrowdStrengths:
    """On whichever prompts the votes were given. Names that no chain of votes links have no common scale: ValueError."""
    check_votes(votes)
    if not (l2 > 0 and prior_decisions > 0 and 0 < prior_right < 1):
        raise ValueError(f"priors need l2 and decisions above 0, and a share between 0 and 1: {l2}, {prior_decisions}, {prior_right}")
    names = linked_names([Comparison(v.first, v.second, v.outcome) for v in votes])
    place, raters = {name: i for i, name in enumerate(names)}, {r: j for j, r in enumerate(dict.fromkeys(v.rater for v in votes))}
    directed = [
        (place[winner], place[loser], raters[v.rater], weight)
        for v in votes
        for winner, loser, weight in ((v.first, v.second, v.outcome), (v.second, v.first, 1 - v.outcome))
        if weight > 0
    ]
    winner_V, loser_V, rater_V = np.asarray([row[:3] for row in directed]).T
    weight_V = np.asarray([row[3] for row in directed])
    votes_J = np.bincount(rater_V, weights=weight_V)
    strengths_M, eta_J = np.zeros(len(names)), np.full(len(raters), prior_right)
    for _ in range(_MAX_STEPS):
        apart_V = strengths_M[winner_V] - strengths_M[loser_V]
        as_said_V, opposite_V = eta_J[rater_V] * _sigmoid(apart_V), (1 - eta_J[rater_V]) * _sigmoid(-apart_V)
        meant_V = weight_V * as_said_V / (as_said_V + opposite_V)
        eta_J = (np.bincount(rater_V, weights=meant_V) + prior_decisions * prior_right) / (votes_J + prior_decisions)
        wins_MM = np.zeros((len(names), len(names)))
        np.add.at(wins_MM, (winner_V, loser_V), meant_V)
        np.add.at(wins_MM, (loser_V, winner_V), weight_V - meant_V)
        before_M, strengths_M = strengths_M, fit_strengths(wins_MM[None], l2)[0]
        if np.abs(strengths_M - before_M).max() < _CLOSE_ENOUGH:
            break
    order = np.argsort(-strengths_M, kind="stable")
    return CrowdStrengths({names[i]: float(strengths_M[i]) for i in order}, {rater: float(eta_J[j]) for rater, j in raters.items()})


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))  # no overflow
