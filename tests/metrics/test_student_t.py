"""Student's t against SciPy, over odd and even, few and many degrees of freedom."""

import pytest

from mygpt.metrics.student_t import t_cdf, t_quantile

stats = pytest.importorskip("scipy.stats")

DEGREES = (1, 2, 3, 4, 5, 10, 29, 59, 100, 1_319, 10_000)


@pytest.mark.parametrize("dof", DEGREES)
def test_equals_scipy(dof: int) -> None:
    for t in (-40.0, -2.5, -0.3, 0.0, 0.7, 1.96, 12.0):
        assert t_cdf(t, dof) == pytest.approx(stats.t.cdf(t, dof), abs=1e-12)
    for chance in (0.005, 0.025, 0.3, 0.5, 0.8, 0.95, 0.975, 0.999):
        assert t_quantile(chance, dof) == pytest.approx(stats.t.ppf(chance, dof), abs=1e-9)


def test_the_printed_table() -> None:
    """Two-sided 95 % of 1, 10 and 30 degrees of freedom, as in the tables at the back of textbooks."""
    assert [round(t_quantile(0.975, dof), 3) for dof in (1, 10, 30)] == [12.706, 2.228, 2.042]


def test_what_is_no_distribution_is_refused() -> None:
    for chance, dof in ((0.975, 0), (0.0, 5), (1.0, 5)):
        with pytest.raises(ValueError, match="degrees of freedom"):
            t_quantile(chance, dof)
    with pytest.raises(ValueError, match="degrees of freedom"):
        t_cdf(1.0, 0)
