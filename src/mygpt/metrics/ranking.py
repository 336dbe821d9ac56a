"""Ranking: how far up the right documents stand in a list of search results.

    recall_at_k      share of the relevant documents among the first k
    reciprocal_rank  1 / place of the first relevant one, 0 when there is none; MRR is its mean over queries
    ndcg_at_k        DCG = sum over the first k places of gain / log2(place + 1), divided by that of the best possible order

Gains are relevance grades; with grades 0 and 1 nDCG is binary. `exponential` makes a gain 2^grade - 1, which favours the top grades.

Source: Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques", with log2(place + 1) for all places; exponential
gains: Burges et al. 2005, "Learning to rank using gradient descent"; reciprocal rank: Voorhees 1999, "The TREC-8 question
answering track report".
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence


def linear(grade: float) -> float:
    return grade


def exponential(grade: float) -> float:
    return 2**grade - 1


def recall_at_k(ranked: Sequence[str], relevant: Collection[str], k: int) -> float:
    _check(ranked, len(set(relevant)), k)
    return len(set(ranked[:k]) & set(relevant)) / len(set(relevant))


def reciprocal_rank(ranked: Sequence[str], relevant: Collection[str], *, k: int | None = None) -> float:
    """Looking at the first k places, or all."""
    _check(ranked, len(relevant), 1 if k is None else k)
    return next((1 / place for place, document in enumerate(ranked[:k], start=1) if document in relevant), 0.0)


def mean_reciprocal_rank(rankings: Sequence[Sequence[str]], relevant: Sequence[Collection[str]], *, k: int | None = None) -> float:
    """`relevant[i]` belongs to `rankings[i]`."""
    if not rankings or len(rankings) != len(relevant):
        raise ValueError(f"MRR needs as many rankings as sets of relevant documents, and some: {len(rankings)} and {len(relevant)}")
    return sum(reciprocal_rank(r, some, k=k) for r, some in zip(rankings, relevant, strict=True)) / len(rankings)


def ndcg_at_k(ranked: Sequence[str], grades: Mapping[str, float], k: int, *, gain: Callable[[float], float] = linear) -> float:
    """`grades` of the documents that were judged; others have grade 0, and so has what is missing from the list."""
    if negative := [document for document, grade in grades.items() if not grade >= 0]:
        raise ValueError(f"the grade of {negative[0]!r} is {grades[negative[0]]}; grades are 0 or more")
    _check(ranked, sum(grade > 0 for grade in grades.values()), k)
    best = sorted(grades.values(), reverse=True)
    return _dcg([grades.get(document, 0.0) for document in ranked], k, gain) / _dcg(best, k, gain)


def _dcg(grades: Sequence[float], k: int, gain: Callable[[float], float]) -> float:
    return sum(gain(grade) / math.log2(place + 1) for place, grade in enumerate(grades[:k], start=1))


def _check(ranked: Sequence[str], num_relevant: int, k: int) -> None:
    if not num_relevant:
        raise ValueError(f"a query with 0 relevant documents has no score ({len(ranked)} were found): leave it out, and say so")
    if k < 1:
        raise ValueError(f"the first {k} places hold nothing")
    if len(set(ranked)) != len(ranked):
        twice = next(document for place, document in enumerate(ranked) if document in ranked[:place])
        raise ValueError(f"{twice!r} stands twice in a ranking of {len(ranked)}: it would count twice")
