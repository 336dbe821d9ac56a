"""Forgetting per task, on made-up predictions whose F_i and backward transfer are worked by hand."""

from collections.abc import Mapping

import pytest

from mygpt.artifacts.report import Predictions
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.forgetting import TaskForgettingConfig, task_changes, task_forgetting
from tests.evaluate.made_up_predictions import flipped, made, shares

STAGES = ("base", "after A", "after B")
SCORES: Mapping[str, tuple[int, ...]] = {"A": (8, 18, 10), "B": (10, 9, 16)}  # right answers of 20 after each stage


def of_stages(run: Run, scores: Mapping[str, tuple[int, ...]] = SCORES) -> tuple[Predictions, ...]:
    return tuple(made(run, stage, task, shares(20, rights[i])) for i, stage in enumerate(STAGES) for task, rights in scores.items())


def test_by_hand(run: Run) -> None:
    """A: best 18 of 20, now 10: F = 0.4, eight lost and none won. B: best 10 of 20 by the base, now 16: F = -0.3. Mean: 0.05."""
    predictions = task_forgetting(TaskForgettingConfig(num_resamples=500), stages=of_stages(run), run=run)
    facts, (a, b) = predictions.manifest.facts, predictions.rows
    assert (a["task"], a["best_stage"], a["lost"], a["won"]) == ("A", "after A", 8, 0)
    assert (b["task"], b["best_stage"], b["lost"], b["won"]) == ("B", "base", 0, 6)
    assert [row["forgetting"]["estimate"] for row in (a, b)] == pytest.approx([0.4, -0.3])
    assert a["scores"] == pytest.approx([0.4, 0.9, 0.5])
    assert [row["p_value"] for row in (a, b)] == pytest.approx([2 / 2**8, 2 / 2**6])
    assert [row["p_holm"] for row in (a, b)] == pytest.approx([2 * 2 / 2**8, 2 / 2**6])
    assert facts["mean_forgetting"] == pytest.approx(0.05)
    assert (facts["stages"], facts["forgotten"], facts["backward_transfer"]) == (list(STAGES), ["A"], None)


def test_backward_transfer_needs_to_know_who_trained_what(run: Run) -> None:
    """The stage "after A" trained A to 0.9, and A ended at 0.5: BWT = -0.4. The base is left out."""
    stages = tuple(one for one in of_stages(run) if one.manifest.facts["model"]["name"] != "base")
    facts = task_forgetting(TaskForgettingConfig(num_resamples=100, trained=("A", "B")), stages=stages, run=run).manifest.facts
    assert facts["backward_transfer"] == pytest.approx(-0.4)
    with pytest.raises(UsageError, match=r"`trained` names 2 tasks \(A, B\) for 3 stages; measured were A, B"):
        task_forgetting(TaskForgettingConfig(trained=("A", "B")), stages=of_stages(run), run=run)


def test_a_change_without_direction_is_no_forgetting(run: Run) -> None:
    before = shares(40, 20)
    base, tuned = made(run, "base", "A", before), made(run, "tuned", "A", flipped(before, lost=5, won=5))
    (change,) = task_changes({"base": [base], "tuned": [tuned]}, num_resamples=500)
    assert change.forgetting.estimate == 0.0 and change.forgetting.low < 0 < change.forgetting.high
    assert (change.lost, change.won, change.p_value) == (5, 5, 1.0)


def test_a_metric_that_falls_when_better_has_its_sign_turned(run: Run) -> None:
    """Bits per byte 1.0 and 2.0 over 100 and 300 bytes, then 1.5 and 2.1: worse by (50 + 30) / 400 = 0.2 bits per byte."""
    settings = {"primary": "bits_per_byte", "form": "rolling", "num_bytes": (100, 300)}
    base, tuned = made(run, "base", "text", (1.0, 2.0), **settings), made(run, "tuned", "text", (1.5, 2.1), **settings)
    (change,) = task_changes({"base": [base], "tuned": [tuned]}, num_resamples=100)
    assert change.scores == pytest.approx((-1.75, -1.95))
    assert change.forgetting.estimate == pytest.approx(0.2)
    assert (change.lost, change.won) == (2, 0)


def test_what_cannot_be_compared_is_refused(run: Run) -> None:
    base, tuned = made(run, "base", "A", shares(20, 8)), made(run, "tuned", "A", shares(20, 9), version="2")
    with pytest.raises(UsageError, match="two stages or more, not 1"):
        task_changes({"base": [base]})
    with pytest.raises(UsageError, match="different versions"):
        task_changes({"base": [base], "tuned": [tuned]})
    with pytest.raises(UsageError, match="B was not measured after tuned"):
        task_changes({"base": [base, made(run, "base", "B", shares(20, 9))], "tuned": [made(run, "tuned", "A", shares(20, 9))]})
