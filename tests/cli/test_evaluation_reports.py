"""Contamination beside a comparison, one name for all that was measured of a model, and the judge report, as a user types them."""

from pathlib import Path

import pytest

from mygpt.cli.evaluation import predictions_meant
from mygpt.cli.main import main
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from tests.cli.test_evaluation import called
from tests.evaluate.made_up_predictions import Engine, MeasuredConfig, made, measured, shares
from tests.evaluate.test_compare_models import CheckedConfig, checked
from tests.evaluate.test_judged import FIVE, pair

HALF = shares(40, 20)


def test_compare_with_contamination(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    run = Run(home, name="measured")
    base, tuned = made(run, "base", "t", HALF), made(run, "tuned", "t", [1.0] * 20 + HALF[20:])
    found = checked(CheckedConfig(dirty=(True,) * 10 + (False,) * 30), run=run)
    run.close()
    given = ["evaluate", "compare", base.id, tuned.id, "--contamination", found.id, "--set", "num_resamples=200"]
    code, result, _ = called(home, *given, capsys=capsys)
    parts = result["tasks"][0]["models"][1]["contamination"]
    assert code == 0 and (parts["clean"]["items"], parts["dirty"]["items"]) == (30, 10)
    with pytest.raises(SystemExit):
        main([*given, "--home", str(home)])
    assert "30 clean (0.333" in capsys.readouterr().out


def test_one_name_means_all_that_was_measured_of_one_model(tmp_path: Path) -> None:
    """Through a completer, a scorer, or by lineage alone: the same weights are one model; other weights under the name are refused."""
    run = Run(tmp_path / "home", name="handbook")
    told = ({"engine": "torch", "model": "a" * 64, "adapter": None, "dtype": "bfloat16"}, {"model": "a" * 64, "adapter": None})
    for task, identity in zip(("t", "contamination of t"), told, strict=True):
        measured(MeasuredConfig(model="x", task=task, values=tuple(HALF)), completer=Engine(identity), run=run)
    store = made(run, "other", "elsewhere", HALF).store
    with pytest.raises(UsageError, match="names predictions of several models"):
        predictions_meant(store, "handbook")
    run.close()
    run = Run(tmp_path / "second", name="handbook")
    for task, identity in zip(("t", "contamination of t"), told, strict=True):
        store = measured(MeasuredConfig(model="x", task=task, values=tuple(HALF)), completer=Engine(identity), run=run).store
    assert [p.manifest.facts["task"] for _, p in predictions_meant(store, "handbook")] == ["t", "contamination of t"]
    run.close()


def test_judge_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    run = Run(home, name="pairs")
    judged = pair(run, FIVE)
    run.close()
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "judge_report", "--predictions", judged.id, "--set", "num_resamples=200", "--home", str(home)])
    assert ended.value.code == 0
    assert "one against two: win rate 0.525 (" in capsys.readouterr().out
