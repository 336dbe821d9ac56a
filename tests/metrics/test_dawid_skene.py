"""Dawid-Skene: the paper's anaesthetists, two fixed points by hand, raters that were made up and are found again."""

import math

import numpy as np
import pytest

from mygpt.metrics.dawid_skene import Decision, Vote, dawid_skene, pair_reliability

# Dawid and Skene 1979, table 1: 45 patients, five anaesthetists, the first of whom saw each form three times.
PATIENTS = [
    "111 1 1 1 1", "333 4 3 3 4", "112 2 1 2 2", "222 3 1 2 1", "222 3 2 2 2", "222 3 3 2 2", "122 2 1 1 1", "333 3 4 3 3",
    "222 2 2 2 3", "232 2 2 2 3", "444 4 4 4 4", "222 3 3 4 3", "111 1 1 1 1", "222 3 2 1 2", "121 1 1 1 1", "111 2 1 1 1",
    "111 1 1 1 1", "111 1 1 1 1", "222 2 2 2 1", "222 1 3 2 2", "222 2 2 2 2", "222 2 2 2 1", "222 3 2 2 2", "221 2 2 2 2",
    "111 1 1 1 1", "111 1 1 1 1", "232 2 2 2 2", "111 1 1 1 1", "111 1 1 1 1", "112 1 1 2 1", "111 1 1 1 1", "333 3 2 3 3",
    "111 1 1 1 1", "222 2 2 2 2", "222 3 2 3 2", "433 4 3 4 3", "221 2 2 3 2", "232 3 2 3 3", "333 3 4 3 2", "111 1 1 1 1",
    "111 1 1 1 1", "121 2 1 1 1", "232 2 2 2 2", "121 1 1 1 1", "222 2 2 2 2",
]  # fmt: skip
FORMS = [
    Decision(patient, f"observer {j}", int(grade))
    for patient, row in enumerate(PATIENTS, 1)
    for j, said in enumerate(row.split(), 1)
    for grade in said
]


def test_dawid_and_skene_1979() -> None:
    """Their estimates: classes .40 .42 .11 .07; the first anaesthetist .89 .11 / .07 .88 .05 / .34 .66 / .56 .44."""
    found = dawid_skene(FORMS, prior_decisions=0)
    assert list(found.prior.values()) == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=0.005)
    first = [list(row.values()) for row in found.confusion["observer 1"].values()]
    expected = [[0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0], [0, 0.34, 0.66, 0], [0, 0, 0.56, 0.44]]
    assert np.asarray(first) == pytest.approx(np.asarray(expected), abs=0.005)
    assert found.probabilities[36][4] > 0.99 and found.probabilities[3][2] > 0.99  # the votes alone: class 3 (4 to 3), a draw


def test_nothing_near_is_likelier() -> None:
    """The log-likelihood, written out, falls whichever way p and pi are pushed."""
    found = dawid_skene(FORMS, prior_decisions=0)
    share_L = np.asarray(list(found.prior.values()))
    pi_JLL = np.asarray([[list(row.values()) for row in table.values()] for table in found.confusion.values()])

    def log_likelihood(share_L: np.ndarray, pi_JLL: np.ndarray) -> float:
        total = 0.0
        for row in PATIENTS:
            each_L = share_L.copy()
            for j, said in enumerate(row.split()):
                for grade in said:
                    each_L = each_L * pi_JLL[j, :, int(grade) - 1]
            total += math.log(each_L.sum())
        return total

    rng, best = np.random.default_rng(0), log_likelihood(share_L, pi_JLL)
    for _ in range(60):
        other_L, other_JLL = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(4), size=(5, 4))
        assert log_likelihood(0.98 * share_L + 0.02 * other_L, 0.98 * pi_JLL + 0.02 * other_JLL) < best


def test_two_fixed_points_by_hand() -> None:
    """A rater alone is worth what the prior says. Three who agree on five pairs: pi = (5 t + 1.6) / 7, t = pi^3 / (pi^3 + (1 - pi)^3)."""
    alone = pair_reliability([Vote(str(g), "a", "b", float(g % 2), "Ann") for g in range(40)])
    assert alone.raters["Ann"].estimate == pytest.approx(0.8, abs=1e-6)
    assert [alone.probability["1", *pair] for pair in ("ab", "ba")] == pytest.approx([0.8, 0.2], abs=1e-6)
    together = pair_reliability([Vote(str(g), "a", "b", 1.0, rater) for g in range(5) for rater in ("Ann", "Bo", "Cy")])
    t = 1.0
    for _ in range(50):
        pi = (5 * t + 1.6) / 7
        t = pi**3 / (pi**3 + (1 - pi) ** 3)
    assert together.raters["Bo"].estimate == pytest.approx(pi, abs=1e-6) and pi == pytest.approx(0.9427, abs=1e-4)
    assert together.probability["3", "a", "b"] == pytest.approx(t, abs=1e-6)


def votes_of(
    rng: np.random.Generator, rightness: dict[str, float], num_pairs: int, *, ties: float = 0.0
) -> tuple[list[Vote], dict[str, bool]]:
    """Of each pair, who votes how; whether the first is better."""
    truth = {f"p{n}": bool(rng.random() < 0.5) for n in range(num_pairs)}
    votes = []
    for pair, first in truth.items():
        for rater, right in rightness.items():
            said = 0.5 if rng.random() < ties else float(first == (rng.random() < right))
            votes.append(Vote(pair, "x", "y", said, rater))
    return votes, truth


RIGHT = {"careful": 0.95, "good": 0.85, "fair": 0.75, "coin": 0.5, "contrary": 0.1}


def test_raters_are_found_again() -> None:
    """One contrary and one who tosses a coin among five: each within 0.06 of the truth on 400 pairs; better labels than by majority."""
    votes, truth = votes_of(np.random.default_rng(6), RIGHT, 400)
    found = pair_reliability(votes)
    for rater, right in RIGHT.items():
        interval = found.raters[rater]
        assert interval.estimate == pytest.approx(right, abs=0.06) and interval.low <= right <= interval.high, rater
    assert found.raters["contrary"].high < 0.5 < found.raters["fair"].low
    inferred = sum((found.probability[pair, "x", "y"] > 0.5) == first for pair, first in truth.items())
    counted = sum((sum(v.outcome for v in votes if v.group == pair) > 2.5) == first for pair, first in truth.items())
    assert inferred / 400 > 0.95 > counted / 400  # who says the opposite helps, once known
    confident = [max(p, 1 - p) for (_, x, _), p in found.probability.items() if x == "x"]
    assert inferred / 400 == pytest.approx(sum(confident) / 400, abs=0.02)  # the probabilities mean what they say


@pytest.mark.parametrize("rightness", [RIGHT, {"careful": 0.95, "careless": 0.6, "as careless": 0.6}], ids=["five", "three"])
def test_intervals_hold_the_truth(rightness: dict[str, float]) -> None:
    """Also where three raters hardly tell who of them is right: a bootstrap's limits held the careful one's in a quarter of the cases."""
    rng, held = np.random.default_rng(9), []
    for _ in range(12):
        votes, _ = votes_of(rng, rightness, 60)
        found = pair_reliability(votes, num_draws=300)
        held += [found.raters[rater].low <= right <= found.raters[rater].high for rater, right in rightness.items()]
    assert sum(held) / len(held) >= 0.88


def test_neither_names_nor_order_matter() -> None:
    votes, _ = votes_of(np.random.default_rng(2), RIGHT, 50, ties=0.2)
    found = pair_reliability(votes)
    turned = pair_reliability([Vote(v.group, v.second, v.first, 1 - v.outcome, v.rater) for v in votes[::-1]])
    assert {k: found.raters[k].estimate for k in RIGHT} == pytest.approx({k: turned.raters[k].estimate for k in RIGHT}, abs=1e-5)
    assert found.probability == pytest.approx(turned.probability, abs=1e-5)
    assert all(found.probability[g, a, b] + found.probability[g, b, a] == pytest.approx(1) for g, a, b in found.probability)


def test_ties_are_halves() -> None:
    """What all call a tie is 1/2; two ties and one decision lie between that and the decision; nobody is called unreliable for ties."""
    rng = np.random.default_rng(5)
    votes, _ = votes_of(rng, {"Ann": 0.9, "Bo": 0.9, "Cy": 0.9}, 80, ties=0.15)
    votes += [Vote("all", "x", "y", 0.5, rater) for rater in ("Ann", "Bo", "Cy")]
    votes += [Vote("some", "x", "y", said, rater) for rater, said in (("Ann", 1.0), ("Bo", 0.5), ("Cy", 0.5))]
    found = pair_reliability(votes)
    assert found.probability["all", "x", "y"] == pytest.approx(0.5)
    assert 0.5 < found.probability["some", "x", "y"] < 0.9
    assert all(interval.estimate > 0.8 for interval in found.raters.values())


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="two classes or more"):
        dawid_skene([Decision("a", "Ann", 1)])
    with pytest.raises(ValueError, match="there are no votes"):
        pair_reliability([])
    with pytest.raises(ValueError, match="vote 0 of 1: 'x' and 'x'"):
        pair_reliability([Vote("p", "x", "x", 1.0, "Ann")])
    with pytest.raises(ValueError, match=r"outcome 0\.7"):
        pair_reliability([Vote("p", "x", "y", 0.7, "Ann")])
    with pytest.raises(ValueError, match="a prior needs decisions"):
        pair_reliability([Vote("p", "x", "y", 1.0, "Ann")], prior_decisions=0)
