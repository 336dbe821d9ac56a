"""Holm's correction: a table worked by hand, and what it promises."""

import numpy as np
import pytest

from mygpt.metrics.holm import holm


def test_by_hand() -> None:
    """Sorted .01 .02 .03 .04 times 4, 3, 2, 1 is .04 .06 .06 .04; the last may not fall below the one before it."""
    adjusted = holm({"qa": 0.02, "summary": 0.01, "chat": 0.04, "code": 0.03})
    assert adjusted == pytest.approx({"qa": 0.06, "summary": 0.04, "chat": 0.06, "code": 0.06})
    assert list(adjusted) == ["qa", "summary", "chat", "code"]


def test_a_table_with_large_p() -> None:
    """.005 * 3 = .015; .4 * 2 = .8; .9 * 1 = .9; and 1 is the most: .6 * 2 = 1.2."""
    assert holm({"a": 0.9, "b": 0.005, "c": 0.4}) == pytest.approx({"a": 0.9, "b": 0.015, "c": 0.8})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({"one": 0.03}) == {"one": 0.03}
    assert holm({}) == {}


def test_never_above_bonferroni_nor_below_p() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        p_values = {str(i): float(p) for i, p in enumerate(rng.random(6) ** 3)}
        for name, p in holm(p_values).items():
            assert p_values[name] <= p <= min(1.0, 6 * p_values[name])


def test_one_false_claim_among_ten_true_nulls_is_rare() -> None:
    """With ten tasks and no difference anywhere, any claim at all at 5 % comes in at most 5 % of runs (uncorrected: 40 %)."""
    p_RN = np.random.default_rng(4).random((2_000, 10))
    claimed = sum(min(holm({str(i): float(p) for i, p in enumerate(p_N)}).values()) < 0.05 for p_N in p_RN)
    assert 0.035 <= claimed / 2_000 <= 0.065  # 0.05 -+ 3 standard errors
    assert (p_RN.min(axis=1) < 0.05).mean() == pytest.approx(1 - 0.95**10, abs=0.04)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_what_is_no_p_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="qa"):
        holm({"qa": p})
