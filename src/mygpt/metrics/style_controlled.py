"""Bradley-Terry at equal style: what is left of a model's strength when length and markdown are taken out.

    P(i's answer is better than j's) = sigmoid(s_i - s_j + sum over k of b_k * x_k)
    x_k = d_k / root mean square of d_k,   d_k = (f_k of i's answer - f_k of j's) / (f_k of i's + f_k of j's + 1)

f: characters, headings, list items and bold spans of an answer. Strengths s and effects b are the maximum of the likelihood less
l2 / 2 * (sum s^2 + sum b^2), by Newton's method; a tie is half a win for each. s is the strength at equal style, and sums to 0; b_k above
zero says that more of k is preferred. A feature in which no two answers differ has no effect and is left out.

Limits are the wider of two: percentiles of refits to drawn clusters (prompts), and those of the profile likelihood, where it falls
chi2 / 2 below its maximum. The second is there for what draws cannot show: where one model's answers are always the longer ones, strength
and length cannot be told apart, every draw splits them in the same way, and only the likelihood is flat.

Source: LMSYS 2024, "Does style matter? Disentangling style and substance in Chatbot Arena" (features, relative differences), and FastChat's
        `rating_systems.py`; Chiang et al. 2024, arXiv:2403.04132.
We differ: FastChat centres each x_k on its mean, which makes the average difference of style pass for equality: harmless only where the
two places are drawn at random. Here x = 0 is equal style. Its penalty of 0.5 shrinks ratings, ours of 0.01 hardly does; it draws single
comparisons, and counts tokens where we count characters.
Dims: N comparisons, M models, K features, P = M + K coefficients, R problems solved together
"""

import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from statistics import NormalDist

import numpy as np

from mygpt.metrics.bootstrap import Interval
from mygpt.metrics.bradley_terry import L2, Comparison, linked_names, win_probability

_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)  # a comment in code is no heading
_HEADING = re.compile(r"^#{1,6}\s", re.MULTILINE)
_LIST_ITEM = re.compile(r"^\s*(?:\d+\.|[-*+])\s", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
_VALUES_AT_ONCE = 1_000_000  # resamples times comparisons: bounds memory at about 100 MB
_MOST_STEPS = 100
_MOST_HALVINGS = 30
_MOST_PUSHES = 45
_CLOSE_PUSHES = 1e-3  # relative
_CLOSE_ENOUGH = 1e-9


@dataclass(frozen=True)
class Style:
    """Of one answer. Headings, list items and bold spans are markdown's, outside of code."""

    characters: int
    headings: int
    list_items: int
    bold: int


Styles = tuple[Style, Style]  # of the first answer and of the second


@dataclass(frozen=True)
class StyleControlled:
    strengths: dict[str, Interval]  # at equal style, in logits, strongest first
    effects: dict[str, Interval]  # by feature: logits for a typical (root mean square) difference in the first answer's favour


@dataclass(frozen=True)
class StyleControlledRate:
    win_rate: Interval  # of the first system over the second at equal style
    effects: dict[str, Interval]


def style_of(answer: str) -> Style:
    text = _CODE.sub("\n", answer)
    return Style(len(answer), *(len(pattern.findall(text)) for pattern in (_HEADING, _LIST_ITEM, _BOLD)))


def style_controlled(
    comparisons: Sequence[Comparison],
    styles: Sequence[Styles],
    *,
    l2: float = L2,
    num_resamples: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
) -> StyleControlled:
    """`styles[n]` are those of the two answers of `comparisons[n]`. An outcome may be any number from 0 to 1: a judge's probability."""
    names = _checked(comparisons, styles, l2)
    x_NP, features = _design(comparisons, styles, names)
    outcome_N = np.array([c.outcome for c in comparisons])
    weight_N = np.array([c.weight for c in comparisons])
    own = [c.cluster or f"\0{place}" for place, c in enumerate(comparisons)]
    _, cluster_N = np.unique(np.asarray(own), return_inverse=True)
    num_clusters = int(cluster_N.max()) + 1
    found_P = _fit(x_NP, outcome_N, weight_N[None], l2)[0]
    drawn_RP = _resampled(x_NP, outcome_N, weight_N, cluster_N, num_clusters, l2, num_resamples, seed)
    low_P, high_P = np.quantile(drawn_RP, [(1 - level) / 2, (1 + level) / 2], axis=0)
    # Comparisons of one cluster may all say the same: each cluster informs like one of them.
    below_P, above_P = _profile(x_NP, outcome_N, weight_N * num_clusters / len(comparisons), len(names), l2, level)
    limits = zip(found_P, np.minimum(low_P, below_P), np.maximum(high_P, above_P), strict=True)
    intervals = dict(zip([*names, *features], (Interval(*map(float, three)) for three in limits), strict=True))
    strengths = {name: intervals[name] for name in sorted(names, key=lambda name: -intervals[name].estimate)}
    return StyleControlled(strengths, dict(list(intervals.items())[len(names) :]))


def style_controlled_win_rate(
    preferences: Sequence[float],
    styles: Sequence[Styles],
    *,
    clusters: Sequence[str] = (),
    l2: float = L2,
    num_resamples: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
) -> StyleControlledRate:
    """Of two systems: `preferences[n]` in [0, 1] is how much the first one's answer was preferred."""
    of = clusters or [""] * len(preferences)
    pairs = [Comparison("first", "second", value, cluster=cluster) for value, cluster in zip(preferences, of, strict=True)]
    found = style_controlled(pairs, styles, l2=l2, num_resamples=num_resamples, level=level, seed=seed)
    ahead = found.strengths["first"]  # and the second is as far behind
    return StyleControlledRate(Interval(*(win_probability(s, -s) for s in astuple(ahead))), found.effects)


def _design(comparisons: Sequence[Comparison], styles: Sequence[Styles], names: list[str]) -> tuple[np.ndarray, list[str]]:
    """(N, P): +1 and -1 at the two models, then the differences of style; and what the latter are of."""
    place = {name: i for i, name in enumerate(names)}
    models_NM = np.zeros((len(comparisons), len(names)))
    for row, c in enumerate(comparisons):
        models_NM[row, place[c.first]], models_NM[row, place[c.second]] = 1.0, -1.0
    first_NK, second_NK = (np.array([astuple(pair[side]) for pair in styles], dtype=np.float64) for side in (0, 1))
    apart_NK = (first_NK - second_NK) / (first_NK + second_NK + 1)
    scale_K = np.sqrt((apart_NK**2).mean(axis=0))
    differs_K = scale_K > 0
    features = [field.name for field, differs in zip(fields(Style), differs_K, strict=True) if differs]
    return np.hstack([models_NM, apart_NK[:, differs_K] / scale_K[differs_K]]), features


def _resampled(
    x_NP: np.ndarray,
    outcome_N: np.ndarray,
    weight_N: np.ndarray,
    cluster_N: np.ndarray,
    num_clusters: int,
    l2: float,
    num_resamples: int,
    seed: int,
) -> np.ndarray:
    generator = np.random.default_rng(seed)
    at_once = max(1, _VALUES_AT_ONCE // len(x_NP))
    drawn = []
    for start in range(0, num_resamples, at_once):
        num = min(at_once, num_resamples - start)
        times_RC = generator.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), size=num)
        drawn.append(_fit(x_NP, outcome_N, times_RC[:, cluster_N] * weight_N, l2))
    return np.concatenate(drawn)


def _profile(
    x_NP: np.ndarray, outcome_N: np.ndarray, weight_N: np.ndarray, num_models: int, l2: float, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Limits of each coefficient, all at once. A push along it moves the maximum; the harder, the lower the likelihood there."""
    num = x_NP.shape[1]
    along_PP = np.eye(num)
    along_PP[:num_models, :num_models] -= 1 / num_models  # strengths still sum to 0
    allowed_fall = NormalDist().inv_cdf((1 + level) / 2) ** 2 / 2
    best_P = _fit(x_NP, outcome_N, weight_N[None], l2)[0]
    least = _loss(best_P[None], x_NP, outcome_N, weight_N[None], l2)[0]
    which_R, side_R = np.tile(np.arange(num), 2), np.repeat([-1.0, 1.0], num)
    weights_RN = np.broadcast_to(weight_N, (2 * num, len(weight_N)))
    weakest_R, strongest_R, push_R, limit_R = np.zeros(2 * num), np.full(2 * num, np.inf), np.full(2 * num, l2), best_P[which_R]
    for _ in range(_MOST_PUSHES):
        if np.all(strongest_R <= (1 + _CLOSE_PUSHES) * weakest_R):
            break
        there_RP = _fit(x_NP, outcome_N, weights_RN, l2, push_RP=(side_R * push_R)[:, None] * along_PP[which_R])
        too_far_R = _loss(there_RP, x_NP, outcome_N, weights_RN, l2) - least > allowed_fall
        strongest_R = np.where(too_far_R, push_R, strongest_R)
        weakest_R = np.where(too_far_R, weakest_R, push_R)
        limit_R = np.where(too_far_R, limit_R, there_RP[np.arange(2 * num), which_R])
        push_R = np.where(np.isinf(strongest_R), 2 * weakest_R, (weakest_R + strongest_R) / 2)
    return limit_R[:num], limit_R[num:]


def _fit(x_NP: np.ndarray, outcome_N: np.ndarray, weights_RN: np.ndarray, l2: float, *, push_RP: np.ndarray | float = 0.0) -> np.ndarray:
    """Newton's method on R problems, the step halved where the loss would rise. A push adds push . coefficients to the likelihood."""
    num = x_NP.shape[1]
    squares_NQ = (x_NP[:, :, None] * x_NP[:, None, :]).reshape(len(x_NP), num * num)
    found_RP = np.zeros((len(weights_RN), num))

    def loss(coefficients_RP: np.ndarray) -> np.ndarray:
        return _loss(coefficients_RP, x_NP, outcome_N, weights_RN, l2) - (push_RP * coefficients_RP).sum(axis=1)

    now_R = loss(found_RP)
    for _ in range(_MOST_STEPS):
        chance_RN = 0.5 * (1 + np.tanh(found_RP @ x_NP.T / 2))  # no overflow
        slope_RP = (weights_RN * (chance_RN - outcome_N)) @ x_NP + l2 * found_RP - push_RP
        curvature_RPP = ((weights_RN * chance_RN * (1 - chance_RN)) @ squares_NQ).reshape(-1, num, num) + l2 * np.eye(num)
        step_RP = np.linalg.solve(curvature_RPP, slope_RP[:, :, None])[:, :, 0]
        for _ in range(_MOST_HALVINGS):
            next_R = loss(found_RP - step_RP)
            rises_R = next_R > now_R + 1e-12 * np.abs(now_R)
            if not rises_R.any():
                break
            step_RP = np.where(rises_R[:, None], step_RP / 2, step_RP)
        found_RP, now_R = found_RP - step_RP, next_R
        if np.abs(step_RP).max() < _CLOSE_ENOUGH * max(1.0, float(np.abs(found_RP).max())):
            break
    return found_RP


def _loss(coefficients_RP: np.ndarray, x_NP: np.ndarray, outcome_N: np.ndarray, weights_RN: np.ndarray, l2: float) -> np.ndarray:
    z_RN = coefficients_RP @ x_NP.T
    summed_R: np.ndarray = (weights_RN * (np.logaddexp(0.0, z_RN) - outcome_N * z_RN)).sum(axis=1)
    return summed_R + l2 / 2 * (coefficients_RP**2).sum(axis=1)


def _checked(comparisons: Sequence[Comparison], styles: Sequence[Styles], l2: float) -> list[str]:
    if not comparisons or len(comparisons) != len(styles) or not l2 > 0:
        raise ValueError(f"two styles per comparison, and l2 above 0: {len(comparisons)} comparisons, {len(styles)} styles, l2 {l2}")
    for place, c in enumerate(comparisons):
        if c.first == c.second or not 0 <= c.outcome <= 1 or not c.weight > 0:
            said = f"{c.first!r} and {c.second!r}, outcome {c.outcome}, weight {c.weight}"
            raise ValueError(f"comparison {place} of {len(comparisons)}: {said}")
    return linked_names(comparisons)
