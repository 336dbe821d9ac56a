"""Agreement between raters, beyond what chance alone would give. 1 is perfect, 0 is chance, below is worse than chance.

    cohen_kappa          two raters, classes:              (p_o - p_e) / (1 - p_e)
    weighted_kappa       two raters, ordered classes:      1 - sum(w * observed) / sum(w * expected), w = |i - j|^power
    fleiss_kappa         as many ratings for every item, of classes; who gave them does not matter
    krippendorff_alpha   any number of raters, gaps allowed: 1 - D_observed / D_expected, with a distance for the kind of scale

None where it is not defined: everybody used one and the same class, so that chance explains all.

Source: Cohen 1960, "A coefficient of agreement for nominal scales"; Cohen 1968, "Weighted kappa"; Fleiss 1971, "Measuring nominal scale
agreement among many raters"; Krippendorff 2011, "Computing Krippendorff's alpha-reliability", sections C (any number of observers, gaps)
and D (distances).
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (values_V, times used_V) -> squared distances_VV


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    _check_pair("Cohen's kappa", first, second)
    return _kappa(first, second, list(dict.fromkeys([*first, *second])), lambda distance_VV: (distance_VV > 0).astype(np.float64))


def weighted_kappa(
    first: Sequence[Hashable], second: Sequence[Hashable], categories: Sequence[Hashable], *, power: int = 2
) -> float | None:
    """`categories` from lowest to highest. `power` 1: linear weights, 2: quadratic."""
    _check_pair("weighted kappa", first, second)
    if unknown := [c for c in [*first, *second] if c not in categories]:
        raise ValueError(f"weighted kappa: {unknown[0]!r} is not among the {len(categories)} categories")
    return _kappa(first, second, list(categories), lambda distance_VV: distance_VV.astype(np.float64) ** power)


def fleiss_kappa(counts_NC: Sequence[Sequence[int]]) -> float | None:
    """Row: an item; column: a class; cell: how many raters put the item there. Each row has the same sum."""
    if not len(counts_NC) or len({len(row) for row in counts_NC}) != 1:
        raise ValueError(f"Fleiss' kappa needs rows alike, and some: {len(counts_NC)}, of {sorted({len(r) for r in counts_NC})} classes")
    table_NC = np.asarray(counts_NC, dtype=np.float64)
    raters_N = table_NC.sum(axis=1)
    if raters_N.min() != raters_N.max() or raters_N[0] < 2 or table_NC.min() < 0:
        raise ValueError(f"Fleiss' kappa needs as many ratings of each item, two or more: {raters_N.min():g} to {raters_N.max():g}")
    raters = raters_N[0]
    observed = float(((table_NC**2).sum(axis=1) - raters).mean() / (raters * (raters - 1)))
    expected = float(((table_NC.sum(axis=0) / table_NC.sum()) ** 2).sum())
    return None if expected >= 1 else (observed - expected) / (1 - expected)


def nominal(values_V: np.ndarray, used_V: np.ndarray) -> np.ndarray:
    """Names: another one is another one."""
    return 1.0 - np.eye(len(values_V))


def ordinal(values_V: np.ndarray, used_V: np.ndarray) -> np.ndarray:
    """Ranks: as far apart as there are ratings in between."""
    up_to_V = np.cumsum(used_V) - used_V / 2
    return (up_to_V[:, None] - up_to_V[None, :]) ** 2


def interval(values_V: np.ndarray, used_V: np.ndarray) -> np.ndarray:
    """Numbers whose differences mean something: a grade from 1 to 10."""
    numbers_V = values_V.astype(np.float64)
    return (numbers_V[:, None] - numbers_V[None, :]) ** 2


def krippendorff_alpha(ratings: Sequence[Sequence[float | str | None]], *, distance: Distance = nominal) -> float | None:
    """A row per rater, a column per item, None where the rater gave nothing. Items with fewer than two ratings do not count."""
    if len(ratings) < 2 or len({len(row) for row in ratings}) != 1:
        raise ValueError(f"alpha needs two or more raters and rows alike: {len(ratings)} rows of {sorted({len(r) for r in ratings})} items")
    for rater, row in enumerate(ratings):
        if gaps := [item for item, rating in enumerate(row) if rating != rating]:
            raise ValueError(f"rater {rater} of {len(ratings)} gave item {gaps[0]} the rating nan; where there is none, pass None")
    by_item = [[r for r in column if r is not None] for column in zip(*ratings, strict=True)]
    pairable = [item for item in by_item if len(item) >= 2]
    if not pairable:
        raise ValueError(f"alpha needs an item with two ratings or more: 0 of {len(by_item)} have them")
    values = sorted({rating for item in pairable for rating in item})  # type: ignore[type-var]
    place = {value: i for i, value in enumerate(values)}
    coincidences_VV = np.zeros((len(values), len(values)))
    for item in pairable:
        times_V = np.bincount([place[rating] for rating in item], minlength=len(values)).astype(np.float64)
        coincidences_VV += (np.outer(times_V, times_V) - np.diag(times_V)) / (len(item) - 1)
    used_V = coincidences_VV.sum(axis=0)
    squared_VV = distance(np.asarray(values), used_V)
    expected = float((np.outer(used_V, used_V) * squared_VV).sum()) / float(used_V.sum() - 1)
    return None if expected == 0 else 1 - float((coincidences_VV * squared_VV).sum()) / expected


def _kappa(
    first: Sequence[Hashable], second: Sequence[Hashable], categories: list[Hashable], weigh: Callable[[np.ndarray], np.ndarray]
) -> float | None:
    place = {category: i for i, category in enumerate(categories)}
    table_CC = np.zeros((len(categories), len(categories)))
    for a, b in zip(first, second, strict=True):
        table_CC[place[a], place[b]] += 1
    table_CC /= len(first)
    steps_C = np.arange(len(categories))
    weights_CC = weigh(np.abs(steps_C[:, None] - steps_C[None, :]))
    expected = float((weights_CC * np.outer(table_CC.sum(axis=1), table_CC.sum(axis=0))).sum())
    return None if expected == 0 else 1 - float((weights_CC * table_CC).sum()) / expected


def _check_pair(name: str, first: Sequence[Hashable], second: Sequence[Hashable]) -> None:
    if not len(first) or len(first) != len(second):
        raise ValueError(f"{name} needs both raters on the same items, and some: {len(first)} and {len(second)}")
