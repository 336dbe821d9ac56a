"""What a model lost on earlier tasks while it learnt later ones, and how far its distribution moved.

R_{l,i} is the score on task i after stage l (higher is better), T the last stage.

    forgetting          F_i = max_{l<T} R_{l,i} - R_{T,i}           above 0: it was better at i once
    backward_transfer   BWT = mean_{i<T} (R_{T,i} - R_{i,i})        below 0: later tasks harmed earlier ones
    kl_divergence       KL_t = sum_v p_t(v) (ln p_t(v) - ln q_t(v)) in nats, of each position t

Source: the forgetting measure of Chaudhry et al. 2018, arXiv:1801.10112; the backward transfer of Lopez-Paz and Ranzato 2017,
arXiv:1706.08840; Kullback and Leibler 1951, "On information and sufficiency".

Dims  L stages   K tasks   T positions   V vocabulary
"""

from collections.abc import Sequence

import numpy as np

_ROUNDING = 1e-3  # a log-probability in bfloat16 may come out a little above 0


def forgetting(scores_LK: Sequence[Sequence[float]]) -> list[float]:
    """F_i of every task. Before and after one tuning are two stages."""
    scores = _matrix(scores_LK)
    if len(scores) < 2:
        raise ValueError(f"forgetting needs two stages or more, not {len(scores)}")
    lost: list[float] = (scores[:-1].max(axis=0) - scores[-1]).tolist()
    return lost


def backward_transfer(scores_TT: Sequence[Sequence[float]]) -> float:
    """Stage l trained task l: a square, its diagonal the score right after training. The last task has no later one and does not count."""
    scores = _matrix(scores_TT)
    if scores.shape[0] != scores.shape[1] or len(scores) < 2:
        raise ValueError(f"backward transfer needs as many stages as tasks, two or more, not {scores.shape[0]} and {scores.shape[1]}")
    return float((scores[-1] - scores.diagonal())[:-1].mean())


def kl_divergence(p_TV: np.ndarray, q_TV: np.ndarray) -> np.ndarray:
    """(T,) float64, of natural log-probabilities. A token that p rules out adds nothing; one that only q rules out makes it infinite."""
    if p_TV.shape != q_TV.shape or p_TV.ndim != 2:
        raise ValueError(f"two (T, V) arrays of one shape are needed, not {p_TV.shape} and {q_TV.shape}")
    for some_TV in (p_TV, q_TV):
        if not (some_TV <= _ROUNDING).all():  # not-a-number compares false
            raise ValueError("a log-probability is above 0 or not a number")
    found_T = np.empty(len(p_TV))
    for t, (p_V, q_V) in enumerate(zip(p_TV, q_TV, strict=True)):  # a position at a time: float64 of a whole text would be large
        possible_V = p_V > -np.inf
        p, q = p_V[possible_V].astype(np.float64), q_V[possible_V].astype(np.float64)
        found_T[t] = np.sum(np.exp(p) * (p - q))
    return np.maximum(found_T, 0.0)  # rounding of float32 inputs may give -1e-8


def _matrix(rows: Sequence[Sequence[float]]) -> np.ndarray:
    if len({len(row) for row in rows}) != 1 or not len(rows[0]):
        raise ValueError("every stage needs the score of every task")
    scores = np.asarray(rows, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ValueError("a score is missing or not a number")
    return scores
