"""Power: textbook numbers, and simulated experiments of the size it asks for."""

import numpy as np
import pytest
from scipy.stats import binom

from mygpt.metrics.mcnemar import mcnemar_exact
from mygpt.metrics.power import detectable_difference, items_needed
from mygpt.metrics.t_interval import t_interval


def test_textbook() -> None:
    """Half a standard deviation, two-sided 5 %, power 80 %: ((1.960 + 0.842) / 0.5)^2 = 31.4, so 32; power 90 %: 42.03, so 43."""
    assert items_needed(0.5, 1.0) == 32
    assert items_needed(0.5, 1.0, power=0.9) == 43
    assert items_needed(-0.5, 1.0) == 32
    assert items_needed(0.02, 0.2) == 785  # (2.8016 * 10)^2 = 784.9


def test_gsm8k_by_hand() -> None:
    """1,319 items of which 2.5 % are lost and 2.5 % won: sd = sqrt(0.05), 2.8016 * 0.2236 / 36.318 = 1.72 points are found."""
    assert detectable_difference(1_319, 0.05**0.5) == pytest.approx(0.01725, abs=1e-5)


def test_one_is_the_inverse_of_the_other() -> None:
    for n in (30, 60, 200):
        assert items_needed(detectable_difference(n, 0.3), 0.3) == n
    assert items_needed(0.1, 0.0) == 2


def test_simulated_experiments_find_it_as_often_as_stated() -> None:
    n = items_needed(0.1, 0.3)
    assert n == 71
    samples = np.random.default_rng(6).normal(0.1, 0.3, (1_500, n))
    found = sum(t_interval(sample).above_zero for sample in samples) / 1_500
    assert found == pytest.approx(0.8, abs=0.035)  # 3 standard errors


def test_an_exact_test_of_counts_needs_a_step_more() -> None:
    """n' = 150 for 5 % lost and 15 % won: 149.2 / 4 * (1 + sqrt(1 + 4 / (149.2 * 0.1)))^2 = 168.6.
    McNemar's power there, over all counts."""
    sd = (0.20 - 0.10**2) ** 0.5
    assert items_needed(0.1, sd) == 150
    n = items_needed(0.1, sd, step=1.0)
    assert n == 169 and items_needed(-0.1, sd, step=1.0) == n
    assert detectable_difference(n, sd, step=1.0) == pytest.approx(0.1, abs=0.0005)

    def power(n: int) -> float:
        changed = [(k, m) for k in range(n + 1) for m in [binom.pmf(k, n, 0.20)] if m > 1e-12]
        claims = {k: [w for w in range(k // 2 + 1, k + 1) if mcnemar_exact(k - w, w) < 0.05] for k, _ in changed}
        return float(sum(m * binom.pmf(claims[k], k, 0.75).sum() for k, m in changed))

    assert power(150) < 0.77 and power(n) == pytest.approx(0.80, abs=0.015)


def test_the_impossible_is_refused() -> None:
    with pytest.raises(ValueError, match="difference of 0"):
        items_needed(0.0, 1.0)
    with pytest.raises(ValueError, match="standard deviation"):
        items_needed(0.1, float("nan"))
    with pytest.raises(ValueError, match="0 items"):
        detectable_difference(0, 1.0)
