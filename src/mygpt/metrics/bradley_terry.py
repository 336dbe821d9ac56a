"""Bradley-Terry: one strength per model from comparisons of two at a time, with intervals.

P(i beats j) = 1 / (1 + exp(-(s_i - s_j))); a tie is half a win for each; comparisons may weigh more or less. Strengths are the maximum of

    sum over comparisons of weight * (y ln P(i beats j) + (1 - y) ln P(j beats i)) - l2 / 2 * sum s^2,   y = 1, 1/2 or 0

found by Newton's method; they sum to 0, and their order of arrival does not matter. The small l2 (0.01: a normal prior of standard
deviation 10) is there because a model that won everything has no finite maximum. Intervals: whole clusters (prompts) are drawn with
replacement, and the fit is made again. Where some models won all they played against the others, or every cluster says the same, all draws
show the same and the limits would close on each other: there they are at least those of the profile likelihood, where it falls chi2 / 2
below its maximum.

Source: Bradley and Terry 1952, "Rank analysis of incomplete block designs"; ties as halves and the bootstrap as in Chiang et al. 2024,
"Chatbot Arena", arXiv:2403.04132.
We differ: the prior; the wider limits where draws do not differ; a cluster may be a prompt with all its comparisons, not only one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from mygpt.metrics.bootstrap import Interval

L2 = 0.01
_SMALLEST_L2 = 0.001  # below, a perfect record takes strengths too far for Newton's method
_LARGEST_WEIGHT = 1e6
_MAX_STEPS = 300
_MAX_PUSHES = 50
_CLOSE_ENOUGH = 1e-9
_NO_WIDTH = 1e-6
_NUMBERS_AT_ONCE = 4_000_000  # bounds memory at about 64 MB


@dataclass(frozen=True)
class Comparison:
    first: str
    second: str
    outcome: float  # 1.0: the first won; 0.0: the second; 0.5: a tie
    weight: float = 1.0
    cluster: str = ""  # the prompt: comparisons on one rise and fall together; without it each stands alone


def bradley_terry(comparisons: Sequence[Comparison], *, l2: float = L2) -> dict[str, float]:
    """Strength of each model, strongest first, in logits: a difference of ln 3 means winning three times of four."""
    names = _checked(comparisons, l2)
    strengths_M = fit_strengths(_wins(comparisons, names)[None], l2)[0]
    return {names[i]: float(strengths_M[i]) for i in np.argsort(-strengths_M, kind="stable")}


def bradley_terry_intervals(
    comparisons: Sequence[Comparison], *, l2: float = L2, num_resamples: int = 1_000, level: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """The same with limits. Each is about one model against the average of all; for two models see `strength_difference`."""
    fit = _resample(comparisons, l2, num_resamples, seed)
    found = {name: fit.interval(np.eye(len(fit.names))[i], level) for i, name in enumerate(fit.names)}
    return dict(sorted(found.items(), key=lambda pair: -pair[1].estimate))


def strength_difference(
    comparisons: Sequence[Comparison],
    first: str,
    second: str,
    *,
    l2: float = L2,
    num_resamples: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Of the strengths of two models, from the same draws: narrower than their two intervals suggest."""
    fit = _resample(comparisons, l2, num_resamples, seed)
    if missing := [name for name in (first, second) if name not in fit.names]:
        raise ValueError(f"{missing[0]!r} is not among the {len(fit.names)} models compared: {', '.join(fit.names)}")
    contrast_M = np.zeros(len(fit.names))
    contrast_M[fit.names.index(first)] += 1
    contrast_M[fit.names.index(second)] -= 1
    return fit.interval(contrast_M, level)


def win_probability(strength: float, other: float) -> float:
    """Of the first over the second."""
    return float(_sigmoid(np.asarray(strength - other)))


def linked_names(comparisons: Sequence[Comparison]) -> list[str]:
    """Of the models compared, sorted. Models that no chain of comparisons links have no common scale: ValueError."""
    groups: list[set[str]] = []
    for c in comparisons:
        linked = [group for group in groups if c.first in group or c.second in group]
        groups = [group for group in groups if group not in linked] + [set().union({c.first, c.second}, *linked)]
    if len(groups) > 1:
        described = "; ".join(", ".join(sorted(group)) for group in groups)
        raise ValueError(f"{len(groups)} groups of models were never compared with each other: {described}")
    return sorted(groups[0])


@dataclass(frozen=True)
class _Resampled:
    names: list[str]
    strengths_M: np.ndarray
    drawn_RM: np.ndarray
    wins_MM: np.ndarray
    separated: bool
    l2: float

    def interval(self, contrast_M: np.ndarray, level: float) -> Interval:
        estimate = float(self.strengths_M @ contrast_M)
        low, high = np.quantile(self.drawn_RM @ contrast_M, [(1 - level) / 2, (1 + level) / 2])
        if self.separated or high - low < _NO_WIDTH:
            below, above = _profile(self.wins_MM, contrast_M - contrast_M.mean(), level, self.l2)
            low, high = min(low, below), max(high, above)
        return Interval(estimate, float(low), float(high))


def _resample(comparisons: Sequence[Comparison], l2: float, num_resamples: int, seed: int) -> _Resampled:
    names = _checked(comparisons, l2)
    clusters: dict[str, list[Comparison]] = {}
    for place, comparison in enumerate(comparisons):
        clusters.setdefault(comparison.cluster or f"\0{place}", []).append(comparison)
    wins_CK = np.stack([_wins(some, names).ravel() for some in clusters.values()])
    wins_MM = _wins(comparisons, names)
    strengths_M = fit_strengths(wins_MM[None], l2)[0]
    generator = np.random.default_rng(seed)
    drawn = []
    at_once = max(1, _NUMBERS_AT_ONCE // max(wins_CK.shape))
    for start in range(0, num_resamples, at_once):
        num_draws = min(at_once, num_resamples - start)
        times_RC = generator.multinomial(len(wins_CK), np.full(len(wins_CK), 1 / len(wins_CK)), size=num_draws)
        drawn.append(fit_strengths((times_RC @ wins_CK).reshape(num_draws, len(names), len(names)), l2))
    # Comparisons of one cluster may all say the same: each cluster informs like one of them.
    informing_MM = wins_MM * len(clusters) / len(comparisons)
    return _Resampled(names, strengths_M, np.concatenate(drawn), informing_MM, _is_separated(wins_MM), l2)


def _profile(wins_MM: np.ndarray, contrast_M: np.ndarray, level: float, l2: float) -> tuple[float, float]:
    """Limits of contrast . strengths. A push along the contrast moves the maximum; the harder, the lower the likelihood there."""
    allowed_fall = NormalDist().inv_cdf((1 + level) / 2) ** 2 / 2
    best_M = fit_strengths(wins_MM[None], l2)[0]
    limits = []
    for side in (-1.0, 1.0):
        weakest, strongest = 0.0, np.inf
        push, limit = l2, float(best_M @ contrast_M)
        for _ in range(_MAX_PUSHES):
            there_M = fit_strengths(wins_MM[None], l2, push_M=side * push * contrast_M)[0]
            fall = _log_likelihood(best_M, wins_MM, l2) - _log_likelihood(there_M, wins_MM, l2)
            if fall > allowed_fall:
                strongest = push
            else:
                weakest, limit = push, float(there_M @ contrast_M)
            push = 2 * weakest if np.isinf(strongest) else (weakest + strongest) / 2
        limits.append(limit)
    return limits[0], limits[1]


def _log_likelihood(strengths_M: np.ndarray, wins_MM: np.ndarray, l2: float) -> float:
    apart_MM = strengths_M[:, None] - strengths_M[None, :]
    return float(-(wins_MM * np.logaddexp(0.0, -apart_MM)).sum() - l2 / 2 * (strengths_M**2).sum())


def _is_separated(wins_MM: np.ndarray) -> bool:
    """Is there a group that nobody outside it ever beat or tied? Then strengths have no finite maximum (Ford 1957)."""
    reached_MM = (wins_MM > 0) | np.eye(len(wins_MM), dtype=bool)
    for _ in range(len(wins_MM).bit_length()):  # paths of 2, 4, 8 ... wins
        reached_MM = reached_MM @ reached_MM
    return not reached_MM.all()


def fit_strengths(wins_RMM: np.ndarray, l2: float, *, push_M: np.ndarray | float = 0.0) -> np.ndarray:
    """Newton's method on R problems together. wins[r, i, j]: weight of i's wins over j. A push adds push . strengths to the likelihood."""
    games_RMM = wins_RMM + wins_RMM.transpose(0, 2, 1)
    strengths_RM = np.zeros(wins_RMM.shape[:2])
    rounding = 8 * np.finfo(np.float64).eps * float(games_RMM.max()) / l2
    for _ in range(_MAX_STEPS):
        chance_RMM = _sigmoid(strengths_RM[:, :, None] - strengths_RM[:, None, :])
        slope_RM = (wins_RMM - games_RMM * chance_RMM).sum(axis=2) - l2 * strengths_RM + push_M
        step_RM = np.linalg.solve(_curvature(strengths_RM, games_RMM, l2), slope_RM[:, :, None])[:, :, 0]
        # Far out the curve is flat and a full step overshoots: no strength moves by more than 1 at once.
        step_RM /= np.maximum(1.0, np.abs(step_RM).max(axis=1, keepdims=True))
        strengths_RM += step_RM
        if np.abs(step_RM).max() < max(_CLOSE_ENOUGH, rounding):
            return strengths_RM
    raise AssertionError(f"Newton's method did not settle in {_MAX_STEPS} steps: last step {np.abs(step_RM).max()}")


def _curvature(strengths_RM: np.ndarray, games_RMM: np.ndarray, l2: float) -> np.ndarray:
    """(R, M, M): second derivatives, sign turned."""
    chance_RMM = _sigmoid(strengths_RM[:, :, None] - strengths_RM[:, None, :])
    bend_RMM = games_RMM * chance_RMM * (1 - chance_RMM)
    return np.eye(games_RMM.shape[-1]) * (l2 + bend_RMM.sum(axis=2)[:, :, None]) - bend_RMM


def _wins(comparisons: Sequence[Comparison], names: list[str]) -> np.ndarray:
    place = {name: i for i, name in enumerate(names)}
    wins_MM = np.zeros((len(names), len(names)))
    for c in comparisons:
        wins_MM[place[c.first], place[c.second]] += c.weight * c.outcome
        wins_MM[place[c.second], place[c.first]] += c.weight * (1 - c.outcome)
    return wins_MM


def _checked(comparisons: Sequence[Comparison], l2: float) -> list[str]:
    if not comparisons or not l2 >= _SMALLEST_L2:
        raise ValueError(f"Bradley-Terry needs comparisons, and l2 of {_SMALLEST_L2} or more: {len(comparisons)} comparisons, l2 {l2}")
    for place, c in enumerate(comparisons):
        if c.first == c.second or c.outcome not in (0.0, 0.5, 1.0) or not 0 < c.weight <= _LARGEST_WEIGHT:
            said = f"{c.first!r} and {c.second!r}, outcome {c.outcome}, weight {c.weight}"
            raise ValueError(f"comparison {place} of {len(comparisons)}: {said}")
    return linked_names(comparisons)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))  # no overflow
