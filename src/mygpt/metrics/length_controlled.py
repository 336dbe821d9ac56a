"""The win rate that two systems would have if their answers were equally long.

A logistic model of the preference, fitted to the items themselves:

    P(first is better) = sigmoid(b0 + b1 * tanh(d / s))      d: length of first - length of second, s: standard deviation of d

The length-controlled win rate is its value at d = 0, sigmoid(b0). The interval is the percentile bootstrap of the whole fit, s included:
clusters (prompts) are drawn, the model is fitted to each draw.

Source: Dubois et al. 2024, "Length-controlled AlpacaEval", arXiv:2404.04475, section 3 (the length term of its GLM; tanh of the
        standardised difference). Newton's method for logistic regression: McCullagh and Nelder 1989, chapter 2.5.
We differ: their model also has a difficulty for each of its 805 prompts, which nobody has for one's own prompts; preferences may be
probabilities; the penalty is L2 = 0.01 on both coefficients (theirs is L1, by cross-validation), which keeps the fit finite when one side
always wins; their standard error is that of the predictions, this interval is that of the fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mygpt.metrics.bootstrap import Interval

L2 = 0.01
_VALUES_AT_ONCE = 1_000_000  # resamples times items: bounds memory at about 100 MB
_MOST_STEPS = 60
_MOST_HALVINGS = 30


@dataclass(frozen=True)
class LengthControlled:
    win_rate: Interval  # at equal length
    raw: float  # mean preference as it is
    intercept: float  # b0
    slope: float  # b1: above zero, the judge prefers the longer answer
    scale: float  # s, in the unit of the lengths; 0 where all differences are alike and nothing can be controlled


def length_controlled_win_rate(
    preferences: Sequence[float],
    length_differences: Sequence[float],
    *,
    clusters: Sequence[str] = (),
    l2: float = L2,
    num_resamples: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> LengthControlled:
    """`preferences[i]` in [0, 1] is how much the first answer was preferred, `length_differences[i]` how much longer it is."""
    preferences_N = np.asarray(preferences, dtype=np.float64)
    differences_N = np.asarray(length_differences, dtype=np.float64)
    if len(preferences_N) != len(differences_N) or (clusters and len(clusters) != len(preferences_N)):
        counts = f"{len(preferences_N)}, {len(differences_N)}, {len(clusters)}"
        raise ValueError(f"one length difference and one cluster per preference: {counts}")
    if not len(preferences_N) or not np.all((preferences_N >= 0) & (preferences_N <= 1)) or not np.isfinite(differences_N).all():
        raise ValueError("preferences are numbers from 0 to 1, length differences are finite, and there is at least one")
    if l2 <= 0:
        raise ValueError(f"the penalty must be above 0: {l2}")
    b0, b1, scale = _fit(preferences_N, differences_N, np.ones((1, len(preferences_N))), l2)
    _, cluster_N = np.unique(np.asarray(clusters), return_inverse=True) if clusters else (None, np.arange(len(preferences_N)))
    num_clusters = int(cluster_N.max()) + 1
    generator = np.random.default_rng(seed)
    resampled = []
    at_once = max(1, _VALUES_AT_ONCE // len(preferences_N))
    for start in range(0, num_resamples, at_once):
        num = min(at_once, num_resamples - start)
        counts_RC = generator.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), size=num).astype(np.float64)
        resampled.append(_sigmoid(_fit(preferences_N, differences_N, counts_RC[:, cluster_N], l2)[0]))
    low, high = np.quantile(np.concatenate(resampled), [(1 - level) / 2, (1 + level) / 2])
    interval = Interval(float(_sigmoid(b0)[0]), float(low), float(high))
    return LengthControlled(interval, float(preferences_N.mean()), float(b0[0]), float(b1[0]), float(scale[0]))


def _fit(
    preferences_N: np.ndarray, differences_N: np.ndarray, weights_RN: np.ndarray, l2: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(b0, b1, s) of each row of weights, by Newton's method with a halved step where the loss would rise. The loss is convex."""
    total_R = weights_RN.sum(axis=1)
    mean_R = weights_RN @ differences_N / total_R
    spread_RN = differences_N - mean_R[:, None]
    scale_R = np.sqrt((weights_RN * spread_RN**2).sum(axis=1) / total_R)
    x_RN = np.tanh(differences_N / np.where(scale_R > 0, scale_R, 1.0)[:, None]) * (scale_R > 0)[:, None]

    def loss(b0_R: np.ndarray, b1_R: np.ndarray) -> np.ndarray:
        z_RN = b0_R[:, None] + b1_R[:, None] * x_RN
        summed: np.ndarray = (weights_RN * (np.logaddexp(0, z_RN) - preferences_N * z_RN)).sum(axis=1)
        return summed + l2 / 2 * (b0_R**2 + b1_R**2)

    b0_R, b1_R = np.zeros(len(weights_RN)), np.zeros(len(weights_RN))
    now_R = loss(b0_R, b1_R)
    for _ in range(_MOST_STEPS):
        p_RN = _sigmoid(b0_R[:, None] + b1_R[:, None] * x_RN)
        residual_RN, curvature_RN = weights_RN * (p_RN - preferences_N), weights_RN * p_RN * (1 - p_RN)
        g0, g1 = residual_RN.sum(axis=1) + l2 * b0_R, (residual_RN * x_RN).sum(axis=1) + l2 * b1_R
        h00, h01 = curvature_RN.sum(axis=1) + l2, (curvature_RN * x_RN).sum(axis=1)
        h11 = (curvature_RN * x_RN**2).sum(axis=1) + l2
        determinant = h00 * h11 - h01**2
        step0, step1 = (h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant
        if np.abs(np.concatenate([step0, step1])).max() < 1e-10:
            break
        for _ in range(_MOST_HALVINGS):
            next_R = loss(b0_R - step0, b1_R - step1)
            rises = next_R > now_R + 1e-12 * np.abs(now_R)
            if not rises.any():
                break
            step0, step1 = np.where(rises, step0 / 2, step0), np.where(rises, step1 / 2, step1)
        b0_R, b1_R, now_R = b0_R - step0, b1_R - step1, next_R
    return b0_R, b1_R, scale_R


def _sigmoid(x: np.ndarray) -> np.ndarray:
    sigmoid: np.ndarray = 0.5 * (1 + np.tanh(x / 2))  # never overflows
    return sigmoid
