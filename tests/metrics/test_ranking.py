"""Ranking by hand."""

import math

import pytest

from mygpt.metrics.ranking import exponential, mean_reciprocal_rank, ndcg_at_k, recall_at_k, reciprocal_rank

RANKED = ["d1", "d2", "d3", "d4", "d5", "d6"]
GRADES = {"d1": 3, "d2": 2, "d3": 3, "d4": 0, "d5": 1, "d6": 2, "d7": 3, "d8": 2}  # d7 and d8 were not found


def test_graded_by_hand() -> None:
    """3, 2, 3, 0, 1, 2 has DCG 6.861; the best six of all, 3 3 3 2 2 2, have 8.740: nDCG 0.785."""
    discounts = [1 / math.log2(place + 1) for place in range(1, 7)]
    found = sum(g * d for g, d in zip([3, 2, 3, 0, 1, 2], discounts, strict=True))
    best = sum(g * d for g, d in zip([3, 3, 3, 2, 2, 2], discounts, strict=True))
    assert (found, best) == pytest.approx((6.861, 8.740), abs=0.0005)
    assert ndcg_at_k(RANKED, GRADES, 6) == pytest.approx(found / best) == pytest.approx(0.785, abs=0.0005)


def test_exponential_gains_by_hand() -> None:
    """Grades 1, 2 in the wrong order: (1 + 3/log2 3) / (3 + 1/log2 3)."""
    assert ndcg_at_k(["a", "b"], {"a": 1, "b": 2}, 2, gain=exponential) == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))


def test_binary_by_hand() -> None:
    """Relevant at places 2 and 4 of the first 5, of three: (1/log2 3 + 1/log2 5) / (1 + 1/log2 3 + 1/2)."""
    binary = {"d2": 1, "d4": 1, "elsewhere": 1}
    assert ndcg_at_k(RANKED, binary, 5) == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 1 / 2))
    assert recall_at_k(RANKED, binary, 3) == pytest.approx(1 / 3)
    assert recall_at_k(RANKED, binary, 5) == pytest.approx(2 / 3)
    assert reciprocal_rank(RANKED, binary) == 1 / 2
    assert reciprocal_rank(RANKED, binary, k=1) == 0.0


def test_mean_reciprocal_rank_by_hand() -> None:
    assert mean_reciprocal_rank([["a", "b"], ["a", "b", "c"], ["a"]], [{"a"}, {"c"}, {"z"}]) == pytest.approx((1 + 1 / 3 + 0) / 3)


def test_the_best_order_scores_1_and_a_swap_costs() -> None:
    best = sorted(GRADES, key=lambda document: -GRADES[document])
    assert ndcg_at_k(best, GRADES, 8) == 1.0
    assert ndcg_at_k([best[-1], *best[1:-1], best[0]], GRADES, 8) < 0.9
    assert ndcg_at_k([], GRADES, 8) == recall_at_k([], GRADES, 8) == 0.0  # nothing found


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="0 relevant documents has no score"):
        ndcg_at_k(RANKED, {"d1": 0}, 5)
    with pytest.raises(ValueError, match="0 relevant"):
        recall_at_k(RANKED, set(), 5)
    with pytest.raises(ValueError, match="'d1' stands twice in a ranking of 3"):
        recall_at_k(["d1", "d2", "d1"], {"d1"}, 5)
    with pytest.raises(ValueError, match="first 0 places"):
        recall_at_k(RANKED, {"d1"}, 0)
    with pytest.raises(ValueError, match="grade of 'd1' is -1"):
        ndcg_at_k(RANKED, {"d1": -1, "d2": 1}, 5)
    with pytest.raises(ValueError, match="1 and 2"):
        mean_reciprocal_rank([["a"]], [{"a"}, {"b"}])
