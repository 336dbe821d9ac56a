"""Power: textbook numbers, and simulated experiments of the size it asks for."""

import math

import numpy as np
import pytest
from scipy.stats import binom, nct, t

from mygpt.metrics.mcnemar import mcnemar_exact
from mygpt.metrics.power import detectable_difference, items_needed, kurtosis_of, quantile
from mygpt.metrics.t_interval import t_interval


def test_textbook() -> None:
    """Half a standard deviation, two-sided 5 %, power 80 %: Cohen 1988's t test of one sample needs 34; power 90 %, 44. The normal
    approximation says 31.4 and 42.03."""
    assert items_needed(0.5, 1.0) == items_needed(-0.5, 1.0) == 34
    assert items_needed(0.5, 1.0, power=0.9) == 44
    assert items_needed(0.02, 0.2) == 787  # (2.8016 * 10)^2 = 784.9, and two more


@pytest.mark.parametrize("size", [0.1, 0.2, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("power", [0.8, 0.95])
def test_of_normal_differences_it_is_the_noncentral_t(size: float, power: float) -> None:
    def scipys(n: int) -> float:
        return float(nct.sf(t.ppf(0.975, n - 1), n - 1, size * n**0.5))

    n = items_needed(size, 1.0, power=power)
    assert scipys(n - 1) < power <= scipys(n)


def test_gsm8k_by_hand() -> None:
    """1,319 items of which 2.5 % are lost and 2.5 % won: sd = sqrt(0.05), 2.8016 * 0.2236 / 36.318 = 1.72 points, an exact test's step
    apart. Of an interval: t is 1.9618; kurtosis 1 / .05: 1.9618 + .8416 * sqrt(1 + 3.8486 * 19 / 5276) = 2.8092, less 1.9618 * 19 / 10552 =
    .0035: 1.73 points."""
    assert detectable_difference(1_319, 0.05**0.5, step=1.0) == pytest.approx(0.01725 + 1 / 1_319, abs=1e-5)
    assert detectable_difference(1_319, 0.05**0.5, kurtosis=20.0) == pytest.approx(2.8057 * 0.2236068 / 1_319**0.5, abs=1e-6)


def test_quantiles_far_out_are_student_ts() -> None:
    for dof in (5, 999, 1_000, 5_000, 10**9):
        for chance in (0.9, 0.975, 0.9995):
            assert quantile(chance, dof) == pytest.approx(t.ppf(chance, dof), rel=1e-7)
    assert items_needed(1e-5, 1.0) == pytest.approx(2.8015852**2 * 1e10, rel=1e-6)  # at once, however many


def test_kurtosis_by_hand() -> None:
    """One of ten is 10: mean 1, squares 9 * 1 + 81 = 90, fourth powers 9 + 6561 = 6570: (657) / 9^2. Flips of 1 in 20: 1 / .05."""
    assert kurtosis_of(np.array([10.0] + [0.0] * 9)) == pytest.approx(657 / 81)
    assert kurtosis_of(np.array([1.0, -1.0] + [0.0] * 38)) == pytest.approx(20.0)
    assert kurtosis_of(np.array([0.3, 0.3])) == 3.0  # nothing to go by


def test_where_few_items_differ_it_is_as_often_as_stated() -> None:
    """One item in ten differs, by about .5 either way, and all by .06: kurtosis 3 / .1. The plain formula says 55 items; Student's interval
    then finds it in less than 80 of a hundred."""
    rng = np.random.default_rng(12)

    def found(n: int) -> float:
        scores_SN = np.where(rng.random((8_000, n)) < 0.1, rng.normal(0.0, 0.5, (8_000, n)), 0.0) + 0.06
        error_S = scores_SN.std(axis=1, ddof=1) / n**0.5
        return float((scores_SN.mean(axis=1) - t.ppf(0.975, n - 1) * error_S > 0).mean())

    sd = (0.1 * 0.25) ** 0.5
    n = items_needed(0.06, sd, kurtosis=30.0)
    assert (math.ceil((2.8016 * sd / 0.06) ** 2), items_needed(0.06, sd), n) == (55, 57, 59)
    assert found(n) == pytest.approx(0.805, abs=0.0135)  # 3 standard errors


def test_one_is_the_inverse_of_the_other() -> None:
    for n in (30, 60, 200):
        assert items_needed(detectable_difference(n, 0.3), 0.3) == n
    assert items_needed(0.1, 0.0) == 2


def test_simulated_experiments_find_it_as_often_as_stated() -> None:
    n = items_needed(0.1, 0.3)
    assert n == 73
    samples = np.random.default_rng(6).normal(0.1, 0.3, (1_500, n))
    found = sum(t_interval(sample).above_zero for sample in samples) / 1_500
    assert found == pytest.approx(0.8, abs=0.035)  # 3 standard errors


def test_an_exact_test_of_counts_needs_a_step_more() -> None:
    """n' = 150 for 5 % lost and 15 % won: 149.2 / 4 * (1 + sqrt(1 + 4 / (149.2 * 0.1)))^2 = 168.6.
    McNemar's power there, over all counts."""
    sd = (0.20 - 0.10**2) ** 0.5
    plain = math.ceil((2.8015852 * sd / 0.1) ** 2)
    assert plain == 150
    n = items_needed(0.1, sd, step=1.0)
    assert n == 169 and items_needed(-0.1, sd, step=1.0) == n
    assert detectable_difference(n, sd, step=1.0) == pytest.approx(0.1, abs=0.0005)

    def power(n: int) -> float:
        changed = [(k, m) for k in range(n + 1) for m in [binom.pmf(k, n, 0.20)] if m > 1e-12]
        claims = {k: [w for w in range(k // 2 + 1, k + 1) if mcnemar_exact(k - w, w) < 0.05] for k, _ in changed}
        return float(sum(m * binom.pmf(claims[k], k, 0.75).sum() for k, m in changed))

    assert power(plain) < 0.77 and power(n) == pytest.approx(0.80, abs=0.015)


def test_the_impossible_is_refused() -> None:
    with pytest.raises(ValueError, match="difference of 0"):
        items_needed(0.0, 1.0)
    with pytest.raises(ValueError, match="standard deviation"):
        items_needed(0.1, float("nan"))
    with pytest.raises(ValueError, match="0 items"):
        detectable_difference(0, 1.0)
