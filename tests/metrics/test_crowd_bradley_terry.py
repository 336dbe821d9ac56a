"""Crowd-BT: SciPy's maximum, plain Bradley-Terry where all are trusted, raters that were made up and are found again."""

import numpy as np
import pytest

from mygpt.metrics.bradley_terry import Comparison, bradley_terry
from mygpt.metrics.crowd_bradley_terry import crowd_bradley_terry
from mygpt.metrics.dawid_skene import Vote

ETA = {"Ann": 0.95, "Bo": 0.85, "coin": 0.5, "contrary": 0.1}


def made_up(seed: int, *, texts: int, times: int, ties: float = 0.0) -> tuple[list[Vote], dict[str, float]]:
    """Every rater on every pair, so many times."""
    rng = np.random.default_rng(seed)
    strength = {f"text {i:02}": float(rng.normal(0, 1.5)) for i in range(texts)}
    votes = []
    for i, first in enumerate(strength):
        for second in list(strength)[i + 1 :]:
            chance = 1 / (1 + np.exp(strength[second] - strength[first]))
            for rater, eta in ETA.items():
                for time in range(times):
                    said = 0.5 if rng.random() < ties else float((rng.random() < chance) == (rng.random() < eta))
                    votes.append(Vote(str(time), first, second, said, rater))
    return votes, strength


def test_equals_scipys_maximum_with_ties() -> None:
    """The model's likelihood with its two priors (2 decisions, 1.6 of them right), written out and handed to BFGS."""
    optimize = pytest.importorskip("scipy.optimize")
    votes, strength = made_up(1, texts=6, times=2, ties=0.1)
    raters, names = list(ETA), list(strength)
    first, second = np.asarray([[names.index(v.first), names.index(v.second)] for v in votes]).T
    who, outcome = np.asarray([raters.index(v.rater) for v in votes]), np.asarray([v.outcome for v in votes])

    def loss(x: np.ndarray) -> float:
        s, eta = x[:6], 1 / (1 + np.exp(-x[6:]))
        wins = 1 / (1 + np.exp(s[second] - s[first]))
        said = eta[who] * wins + (1 - eta[who]) * (1 - wins)
        log_likelihood = outcome * np.log(said) + (1 - outcome) * np.log(1 - said)
        return float(-log_likelihood.sum() + 0.5 * (s**2).sum() / 2 - (1.6 * np.log(eta) + 0.4 * np.log(1 - eta)).sum())

    theirs = optimize.minimize(loss, np.concatenate([np.zeros(6), np.full(4, np.log(4))]), method="BFGS", options={"gtol": 1e-7}).x
    ours = crowd_bradley_terry(votes, l2=0.5)
    assert [ours.strengths[name] for name in names] == pytest.approx(theirs[:6].tolist(), abs=1e-4)
    assert [ours.raters[rater] for rater in raters] == pytest.approx((1 / (1 + np.exp(-theirs[6:]))).tolist(), abs=1e-4)


def test_trusted_raters_give_bradley_terry() -> None:
    votes, _ = made_up(3, texts=4, times=3, ties=0.2)
    trusted = crowd_bradley_terry(votes, prior_decisions=1e9, prior_right=1 - 1e-9)
    plain = bradley_terry([Comparison(v.first, v.second, v.outcome) for v in votes])
    assert trusted.strengths == pytest.approx(plain, abs=1e-5) and list(trusted.strengths) == list(plain)


def test_raters_and_strengths_are_found_again() -> None:
    """20 texts. Votes taken at their word draw all strengths together; with who is contrary known, they are as they were made up."""
    votes, strength = made_up(7, texts=20, times=4)
    found = crowd_bradley_terry(votes)
    for rater, eta in ETA.items():
        assert found.raters[rater] == pytest.approx(eta, abs=0.05), rater
    truth = np.asarray(list(strength.values())) - np.mean(list(strength.values()))
    ours = np.asarray([found.strengths[name] for name in strength])
    plain = bradley_terry([Comparison(v.first, v.second, v.outcome) for v in votes])
    theirs = np.asarray([plain[name] for name in strength])
    assert np.sqrt(((ours - truth) ** 2).mean()) < 0.25 < 0.7 < np.sqrt(((theirs - truth) ** 2).mean())
    assert np.corrcoef(ours, truth)[0, 1] > 0.98 and sum(found.strengths.values()) == pytest.approx(0, abs=1e-6)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="there are no votes"):
        crowd_bradley_terry([])
    with pytest.raises(ValueError, match="l2 and decisions above 0"):
        crowd_bradley_terry([Vote("g", "x", "y", 1.0, "Ann")], l2=0)
    with pytest.raises(ValueError, match="2 groups of models were never compared with each other: x, y; a, b"):
        crowd_bradley_terry([Vote("g", "x", "y", 1.0, "Ann"), Vote("g", "a", "b", 1.0, "Ann")])
