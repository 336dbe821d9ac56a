"""Scenarios by metrics, worked by hand on four items; what was not measured stays empty."""

import math

import pytest

from mygpt.artifacts.report import Predictions, Report
from mygpt.artifacts.task import Item, Task
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.harness import RunTaskConfig, run_task
from mygpt.evaluate.scenarios import ScenariosConfig, scenario_rows, scenarios
from mygpt.infer.scripted import ScriptedCompleter
from tests.evaluate.test_harness import Table, sums, task_of

# p(yes) of four items; yes is right for a, b, c. Right at 0.9, 0.6, and wrong at c (0.3) and d (0.8)
P_YES = {"a": 0.9, "b": 0.6, "c": 0.3, "d": 0.8}
ITEMS = [
    Item(name, f"Q {name}", ("yes", "no"), 0 if name != "d" else 1, facts={"slice": "north" if name in "ab" else "south"}) for name in P_YES
]
# disturbed, b goes wrong and c goes right
DISTURBED = {**P_YES, "b": 0.2, "c": 0.7}


def table(p_yes: dict[str, float]) -> Table:
    return Table({(f"Q {n}", f" {c}"): math.log(p if c == "yes" else 1 - p) for n, p in p_yes.items() for c in ("yes", "no")})


def measured(run: Run, task: Task, p_yes: dict[str, float]) -> Predictions:
    made = run_task(RunTaskConfig(cached=False), task=task, scorer=table(p_yes), run=run)
    assert isinstance(made, Predictions)
    return made


def test_by_hand(run: Run) -> None:
    plain = measured(run, task_of(run, ITEMS, chance=0.5), P_YES)
    disturbed = measured(run, task_of(run, ITEMS, chance=0.5, name="made_typos", variant_of="made"), DISTURBED)
    [row] = scenario_rows([plain, disturbed], num_resamples=200, min_slice=2, seed=0)
    assert (row["task"], row["items"], row["metric"], row["accuracy"]) == ("made", 4, "acc", 0.5)
    # confidences 0.9 right, 0.6 right, 0.7 wrong, 0.8 wrong, each in a bin of its own: (0.1 + 0.4 + 0.7 + 0.8) / 4
    assert row["calibration"] == pytest.approx(0.5)
    assert row["robustness"] == 0.25  # a alone is right both times
    assert row["fairness"] == 1.0  # north 2 of 2, south 0 of 2
    assert row["toxicity"] is None
    assert row["tokens_per_item"] == 2.0  # the table says one for each choice
    assert row["accuracy_interval"][0] <= 0.5 <= row["accuracy_interval"][1]


def test_what_was_not_measured_is_empty(run: Run) -> None:
    plain = measured(run, task_of(run, ITEMS), P_YES)
    [row] = scenario_rows([plain], num_resamples=50, min_slice=10, seed=0)
    assert (row["robustness"], row["fairness"]) == (None, None)  # no variant; slices of two items are noise
    answered = run_task(RunTaskConfig(cached=False), task=sums(run), completer=ScriptedCompleter(lambda c: "4"), run=run)
    [row] = scenario_rows([answered], num_resamples=50, min_slice=2, seed=0)  # type: ignore[list-item]
    assert (row["accuracy"], row["calibration"], row["tokens_per_item"], row["model"]) == (0.25, None, None, "scripted")


def test_refused(run: Run) -> None:
    plain = measured(run, task_of(run, ITEMS), P_YES)
    with pytest.raises(UsageError, match="is the second of made and one model"):
        scenario_rows([plain, plain], num_resamples=50, min_slice=2, seed=0)
    fewer = measured(run, task_of(run, ITEMS[:3], name="made_typos", variant_of="made"), DISTURBED)
    with pytest.raises(UsageError, match="has other items than"):
        scenario_rows([plain, fewer], num_resamples=50, min_slice=2, seed=0)
    newer = measured(run, task_of(run, ITEMS, name="made_typos", variant_of="made", version="2"), DISTURBED)
    with pytest.raises(UsageError, match="is of another version than"):
        scenario_rows([plain, newer], num_resamples=50, min_slice=2, seed=0)


def test_the_page(run: Run) -> None:
    one = measured(run, task_of(run, ITEMS, name="<b>"), P_YES)
    other = measured(run, task_of(run, ITEMS), DISTURBED)
    report = scenarios(ScenariosConfig(num_resamples=50, min_slice=2), predictions=(one, other), run=run)
    assert isinstance(report, Report)
    page = report.page.read_text(encoding="utf-8")
    assert [row["task"] for row in report.figures["scenarios"]] == ["<b>", "made"]
    assert "&lt;b&gt;" in page and "<td>&lt;" in page and "http" not in page.replace("http-equiv", "")
    assert "gap between slices" in page and "--share: 100%" in page
