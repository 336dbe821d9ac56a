"""How good a reward is on compared answers: accuracy beside what needs no model, calibration, and how much of it is length.

    quality(pairs)         figures as JSON values, for facts and reports
    sentences(figures)     what they say

Length bias is looked at from three sides: the correlation of reward with length, over answers and within pairs; accuracy where the longer
answer is the better one, and where it is the worse one; and the partial effect, the slope b of

    reward of the better answer - reward of the worse one = a + b * (their difference in length) + rest

which says what length earns when the preference is the same. Without length bias b is 0.

Source     calibration: `metrics/calibration`, of sigmoid(r_chosen - r_rejected), the model's own probability (Bradley and Terry 1952);
           length bias of rewards: Singhal et al. 2023, arXiv:2310.03716
We differ  which side of a pair is called first decides nothing: correlations within pairs are about zero, not about their mean
Dims       P pairs   N answers   K sums
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mygpt.align.preference_groups import Group
from mygpt.metrics.bootstrap import Interval, bootstrap_mean, bootstrap_statistic
from mygpt.metrics.calibration import brier_binary, equal_width_bins, expected_calibration_error
from mygpt.metrics.wilson import wilson

_CHARACTERS = 100  # the partial effect is told for so many
_RESAMPLES = 2_000


@dataclass(frozen=True)
class ScoredPair:
    chosen: float  # reward, as the head gives it
    rejected: float
    chosen_length: int  # characters
    rejected_length: int
    prompt: str  # pairs of one prompt rise and fall together
    is_tie: bool = False


    @classmethod
    def of(cls, chosen: tuple[str, float], rejected: tuple[str, float], *, probability: float, is_tie: bool, prompt: str) -> "ScoredPair":
        """Of texts with their rewards. A chosen answer that is the better with less than one half is the worse one."""
        (better, high), (worse, low) = (chosen, rejected) if probability >= 0.5 else (rejected, chosen)
        return cls(high, low, len(better), len(worse), prompt, is_tie or probability == 0.5)


def scored_pairs(groups: Sequence[Group], rewards: Sequence[Sequence[float]]) -> list[ScoredPair]:
    """`rewards[g][i]`: of answer i of group g."""
    found = []
    for number, (group, own) in enumerate(zip(groups, rewards, strict=True)):
        both = list(zip(group.answers, own, strict=True))
        found += [
            ScoredPair.of(both[v.chosen], both[v.rejected], probability=v.probability, is_tie=v.is_tie, prompt=str(number))
            for v in group.verdicts
        ]
    return found


def quality(pairs: Sequence[ScoredPair], *, seed: int = 0) -> dict[str, Any]:
    """Ties have no right side: they are counted, and in none of these figures."""
    decided = [pair for pair in pairs if not pair.is_tie]
    found: dict[str, Any] = {"pairs": len(decided), "prompts": len({p.prompt for p in decided}), "ties": len(pairs) - len(decided)}
    if not decided:
        return found
    apart = [pair.chosen - pair.rejected for pair in decided]
    accuracy = share([gap > 0 for gap in apart], [p.prompt for p in decided], seed)
    longer = [1.0 if d > 0 else 0.5 if d == 0 else 0.0 for d in (p.chosen_length - p.rejected_length for p in decided)]
    found |= {
        "accuracy": accuracy.estimate,
        "accuracy_interval": [accuracy.low, accuracy.high],
        "longer_wins": sum(longer) / len(longer),  # how often the longer answer is the better one, without any model
        "shorter_wins": 1 - sum(longer) / len(longer),
        "coin": 0.5,
        "log_loss": float(np.logaddexp(0.0, -np.asarray(apart)).mean()),  # a coin's: ln 2
        "calibration": calibration(apart),
        "length": length_bias(decided, seed=seed),
    }
    return found


def share(hits: Sequence[bool], clusters: Sequence[str], seed: int) -> Interval:
    """Wilson's interval where every pair has a prompt of its own, else a bootstrap over prompts."""
    if len(set(clusters)) == len(hits):
        return wilson(sum(hits), len(hits))
    return bootstrap_mean([float(hit) for hit in hits], clusters=clusters, num_resamples=_RESAMPLES, seed=seed)


def calibration(apart: Sequence[float]) -> dict[str, Any]:
    """Of the probability that the preferred side of each pair is the better one; which side is named first makes no difference."""
    sure = [0.5 * (1 + math.tanh(abs(gap) / 2)) for gap in apart]
    right = [gap > 0 for gap in apart]
    bins = equal_width_bins(sure, right, num_bins=20)  # ten of them from 0.5 to 1
    return {
        "bins": [{"confidence": b.confidence, "right": b.accuracy, "count": b.num_items} for b in bins],
        "expected_error": expected_calibration_error(bins),
        "brier": brier_binary(sure, right),  # a coin's: 0.25
        "mean_confidence": sum(sure) / len(sure),
    }


def length_bias(pairs: Sequence[ScoredPair], *, seed: int = 0) -> dict[str, Any]:
    rewards_N = np.asarray([r for p in pairs for r in (p.chosen, p.rejected)])
    lengths_N = np.asarray([n for p in pairs for n in (p.chosen_length, p.rejected_length)], dtype=np.float64)
    apart_P = np.asarray([p.chosen - p.rejected for p in pairs])
    longer_P = np.asarray([p.chosen_length - p.rejected_length for p in pairs], dtype=np.float64)
    found: dict[str, Any] = {
        "correlation": _correlation(rewards_N - rewards_N.mean(), lengths_N - lengths_N.mean()),
        "correlation_within_pairs": _correlation(apart_P, longer_P),
    }
    for name, sign in (("longer_is_better", 1), ("longer_is_worse", -1)):
        own = [p for p, difference in zip(pairs, longer_P, strict=True) if sign * difference > 0]
        hits = share([p.chosen > p.rejected for p in own], [p.prompt for p in own], seed) if own else None
        limits = {} if hits is None else {"accuracy": hits.estimate, "interval": [hits.low, hits.high]}
        found[name] = {"pairs": len(own), **limits}
    found["partial"] = partial_effect(apart_P, longer_P, float(rewards_N.std()), [p.prompt for p in pairs], seed)
    return found


def partial_effect(apart_P: np.ndarray, longer_P: np.ndarray, std: float, clusters: Sequence[str], seed: int) -> dict[str, float] | None:
    """Slope of least squares, in standard deviations of the reward for 100 characters more; None where lengths differ alike everywhere."""
    if std == 0 or len(longer_P) < 3 or np.ptp(longer_P) == 0:
        return None
    x_P, y_P = longer_P / _CHARACTERS, apart_P / std
    sums_PK = np.stack([np.ones_like(x_P), x_P, y_P, x_P * x_P, x_P * y_P], axis=1)

    def slope(sums_K: np.ndarray) -> np.ndarray:
        n, x, y, xx, xy = np.moveaxis(sums_K, -1, 0)
        spread = n * xx - x * x
        return np.where(spread > 1e-12 * n * xx, (n * xy - x * y) / np.where(spread == 0, 1, spread), 0.0)

    found = bootstrap_statistic(sums_PK, slope, clusters=clusters, num_resamples=_RESAMPLES, seed=seed)
    return {"per_characters": _CHARACTERS, "slope": found.estimate, "low": found.low, "high": found.high}


def _correlation(one_N: np.ndarray, other_N: np.ndarray) -> float | None:
    """Of numbers about zero; None where one of them is constant."""
    size = float(np.sqrt((one_N**2).sum() * (other_N**2).sum()))
    return float((one_N * other_N).sum() / size) if size > 0 else None


# -- in words ----------------------------------------------------------------------------------------------------------------


def sentences(figures: Mapping[str, Any]) -> list[str]:
    """Of `quality`."""
    if not figures["pairs"]:
        return [f"None of the {figures['ties']} pairs has a better side, so accuracy is not defined."]
    low, high = figures["accuracy_interval"]
    baselines = f"the longer answer {figures['longer_wins']:.3f}, the shorter {figures['shorter_wins']:.3f}, a coin 0.500"
    calibrated, length = figures["calibration"], figures["length"]
    said = [
        f"accuracy {figures['accuracy']:.3f} ({low:.3f} to {high:.3f}) on {figures['pairs']} pairs of {figures['prompts']} prompts; "
        f"without a model: {baselines}.",
        f"It is {calibrated['mean_confidence']:.3f} sure on average; calibration error {calibrated['expected_error']:.3f}, log loss "
        f"{figures['log_loss']:.3f} (a coin's: {math.log(2):.3f}).",
    ]
    if length["correlation"] is not None and length["correlation_within_pairs"] is not None:
        within = f"{length['correlation_within_pairs']:+.2f} within pairs"
        said.append(f"Correlation with length: {length['correlation']:+.2f} over answers, {within}.")
    worse, better = length["longer_is_worse"], length["longer_is_better"]
    if worse["pairs"] and better["pairs"]:
        said.append(f"Accuracy where the longer answer is worse: {_told(worse)}; where it is better: {_told(better)}.")
    if (partial := length["partial"]) is not None:
        reach = f"{partial['slope']:+.2f} ({partial['low']:+.2f} to {partial['high']:+.2f})"
        judged = "rewards length by itself" if partial["low"] > 0 else "punishes it" if partial["high"] < 0 else "shows no length bias"
        said.append(f"{_CHARACTERS} characters more earn {reach} standard deviations at equal preference: it {judged}.")
    if figures["ties"]:
        said.append(f"{figures['ties']} {'tie is' if figures['ties'] == 1 else 'ties are'} in none of these figures.")
    return said


def _told(part: Mapping[str, Any]) -> str:
    low, high = part["interval"]
    return f"{part['accuracy']:.3f} ({low:.3f} to {high:.3f}, {part['pairs']} pairs)"
