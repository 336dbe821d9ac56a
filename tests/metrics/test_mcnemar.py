"""McNemar's exact test by hand, and against SciPy's binomial test."""

import pytest

from mygpt.metrics.mcnemar import mcnemar_exact


def test_by_hand() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(5, 0) == pytest.approx(2 / 32)
    assert mcnemar_exact(1, 4) == pytest.approx(2 * (1 + 5) / 32)


def test_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for lost in range(12):
        for won in range(12):
            if lost + won:
                assert mcnemar_exact(lost, won) == pytest.approx(stats.binomtest(lost, lost + won, 0.5).pvalue)
