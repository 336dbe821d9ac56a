"""Rank and exposure by hand; a scorer that knows the secrets, and one that knows nothing."""

import math

import pytest

from mygpt.core.run import Run
from mygpt.evaluate.canary_exposure import CanaryConfig, canaries, canary_exposure, canary_rows, exposure
from tests.evaluate.test_memorisation import LossTable


def test_exposure_by_hand() -> None:
    others = [-float(i) for i in range(1, 1024)]
    assert exposure(0.0, others) == (1, 10.0)  # first of 1,024: log2 1024 - log2 1
    assert exposure(-3.5, others) == (4, 8.0)
    assert exposure(-4.0, others) == (5, 10 - math.log2(5))  # a tie counts against it
    assert exposure(-5000.0, others) == (1024, 0.0)
    assert exposure(math.nan, others) == (None, None)
    assert exposure(-1.5, [-1.0, math.nan, -2.0]) == (2, math.log2(3) - 1)


def test_a_secret_never_seen_has_an_exposure_of_log2_e_on_average() -> None:
    """Any rank of 1,000 is as likely: the mean of log2 1000 - log2 rank is log2 1000 - log2(1000!) / 1000 = 1.436."""
    others = [float(-i) for i in range(999)]
    mean = sum(exposure(0.5 - i, others)[1] or 0.0 for i in range(1000)) / 1000
    assert mean == pytest.approx(math.log2(1000) - math.lgamma(1001) / math.log(2) / 1000)
    assert mean == pytest.approx(1 / math.log(2), abs=0.007)


def test_planted_canaries_rank_first(run: Run) -> None:
    config = CanaryConfig(num_canaries=3, digits=2)
    planted = canaries(config)
    assert [row.answer for row in canary_rows(config)] == [f"The code of locker {i + 1} is {c.secret}" for i, c in enumerate(planted)]
    assert canaries(config) == planted and canaries(CanaryConfig(num_canaries=3, digits=2, seed=1)) != planted
    knows = canary_exposure(config, scorer=LossTable({f"{c.lead} {c.secret}": 1.0 for c in planted}), run=run)
    assert [(row["rank"], row["candidates"]) for row in knows.rows] == [(1, 100)] * 3
    assert [knows.manifest.facts[key] for key in ("exposure", "highest", "undecided")] == [pytest.approx(math.log2(100)), math.log2(100), 0]
    knows_nothing = canary_exposure(config, scorer=LossTable({}), run=run)  # all alike
    assert knows_nothing.manifest.facts["exposure"] == 0.0


def test_of_many_candidates_a_sample_is_ranked(run: Run) -> None:
    config = CanaryConfig(num_canaries=1, digits=6, max_candidates=64)
    made = canary_exposure(config, scorer=LossTable({canaries(config)[0].row.answer: 0.5}), run=run)
    assert made.rows[0]["candidates"] == 64 and made.rows[0]["exposure"] == 6.0  # no more than the sample can show
