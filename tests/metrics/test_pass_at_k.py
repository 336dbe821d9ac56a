"""pass@k by hand, against the binomials, and unbiased."""

from math import comb

import pytest

from mygpt.metrics.pass_at_k import mean_pass_at_k, pass_at_k


def test_by_hand() -> None:
    """2 of 5 pass: of 10 pairs 3 hold none of them, of 10 triples 1, of 5 fours 0."""
    assert [pass_at_k(5, 2, k) for k in (1, 2, 3, 4)] == pytest.approx([2 / 5, 7 / 10, 9 / 10, 1.0])
    assert pass_at_k(5, 0, 5) == 0.0
    assert pass_at_k(5, 5, 1) == 1.0


def test_equals_the_binomials() -> None:
    for n in range(1, 30):
        for c in range(n + 1):
            for k in range(1, n + 1):
                assert pass_at_k(n, c, k) == pytest.approx(1 - comb(n - c, k) / comb(n, k), abs=1e-12)


def test_unbiased_where_the_plain_estimate_is_not() -> None:
    """Expected over all outcomes of 10 samples at p = 0.3, pass@5 is 1 - 0.7^5; from the observed share it is too low."""
    chance = [comb(10, c) * 0.3**c * 0.7 ** (10 - c) for c in range(11)]
    assert sum(p * pass_at_k(10, c, 5) for c, p in enumerate(chance)) == pytest.approx(1 - 0.7**5)
    assert sum(p * (1 - (1 - c / 10) ** 5) for c, p in enumerate(chance)) < 1 - 0.7**5 - 0.02


def test_tasks_count_alike() -> None:
    assert mean_pass_at_k([5, 200], [2, 0], 2) == pytest.approx((0.7 + 0) / 2)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="pass@10 needs 10 samples of a task or more, not 5"):
        mean_pass_at_k([20, 5], [3, 3], 10)
    with pytest.raises(ValueError, match="6 of 5 samples"):
        pass_at_k(5, 6, 1)
    with pytest.raises(ValueError, match="2 and 1"):
        mean_pass_at_k([5, 5], [1], 1)
    with pytest.raises(ValueError, match="0 and 0"):
        mean_pass_at_k([], [], 1)
