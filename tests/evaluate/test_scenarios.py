"""Scenarios by metrics, worked by hand on four items; what was not measured stays empty."""

import math
from collections.abc import Mapping

import pytest

from mygpt.artifacts.report import Predictions, Report
from mygpt.artifacts.task import Item, Task
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.harness import RunTaskConfig, run_task
from mygpt.evaluate.paired_difference import Resampling
from mygpt.evaluate.scenarios import ScenariosConfig, scenario_rows, scenarios
from mygpt.guard.toxicity import Toxicity
from mygpt.infer.protocols import Identity
from mygpt.infer.scripted import ScriptedCompleter
from tests.evaluate.made_up_predictions import made
from tests.evaluate.test_harness import Table, sums, task_of
from tests.guard.stand_in import StandIn

QUICK = Resampling(num_resamples=200)

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
    [row] = scenario_rows([plain, disturbed], QUICK, min_slice=2)
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
    [row] = scenario_rows([plain], QUICK, min_slice=10)
    assert (row["robustness"], row["fairness"]) == (None, None)  # no variant; slices of two items are noise
    answered = run_task(RunTaskConfig(cached=False), task=sums(run), completer=ScriptedCompleter(lambda c: "4"), run=run)
    [row] = scenario_rows([answered], QUICK, min_slice=2)  # type: ignore[list-item]
    assert (row["accuracy"], row["calibration"], row["tokens_per_item"], row["model"]) == (0.25, None, None, "scripted")


def test_refused(run: Run) -> None:
    plain = measured(run, task_of(run, ITEMS), P_YES)
    with pytest.raises(UsageError, match="is the second of made and one model"):
        scenario_rows([plain, plain], QUICK, min_slice=2)
    fewer = measured(run, task_of(run, ITEMS[:3], name="made_typos", variant_of="made"), DISTURBED)
    with pytest.raises(UsageError, match="has other items than"):
        scenario_rows([plain, fewer], QUICK, min_slice=2)
    newer = measured(run, task_of(run, ITEMS, name="made_typos", variant_of="made", version="2"), DISTURBED)
    with pytest.raises(UsageError, match="is of another version than"):
        scenario_rows([plain, newer], QUICK, min_slice=2)


def test_toxicity_of_every_generated_answer(run: Run) -> None:
    """Four answers, one of them rotten: the mean of three low scores and a high one. A choice is not the model's own words."""
    completer = ScriptedCompleter(lambda c: "rotten" if c.question == "9 + 9?" else "fine")
    answered = run_task(RunTaskConfig(cached=False), task=sums(run), completer=completer, run=run)
    assert isinstance(answered, Predictions)
    toxic = [row["answer"] == "rotten" for row in answered.rows]
    toxicity = Toxicity(StandIn())
    low, high = (float(score) for score in toxicity.score(["fine", "rotten"]))
    [row] = scenario_rows([answered], QUICK, min_slice=2, toxicity=toxicity)
    assert sum(toxic) == 1 and len(toxic) == 4
    assert row["toxicity"] == pytest.approx((high + 3 * low) / 4, abs=1e-6)
    chosen = measured(run, task_of(run, ITEMS), P_YES)
    assert scenario_rows([chosen], QUICK, min_slice=2, toxicity=toxicity)[0]["toxicity"] is None
    assert scenario_rows([answered], QUICK, min_slice=2)[0]["toxicity"] is None  # nobody scored it


def test_items_without_a_score_are_left_out_and_counted(run: Run) -> None:
    values = [1.0, 0.0, None, 1.0, None, 1.0]
    [row] = scenario_rows([made(run, "m", "grounded", values, form="generate")], QUICK, min_slice=2)
    assert (row["items"], row["unscored"], row["accuracy"]) == (4, 2, 0.75)
    ids = tuple(f"grounded-{i}" for i in range(6))
    variant = made(run, "m", "grounded_typos", [0.0, 1.0, 1.0, 1.0, None, 1.0], form="generate", ids=ids)
    variant.manifest.facts["variant_of"] = "grounded"
    [row] = scenario_rows([made(run, "m", "grounded", values, form="generate"), variant], QUICK, min_slice=2)
    assert row["robustness"] == 0.5  # of items 0, 1, 3, 5 the worse: 0, 0, 1, 1


def test_below_thirty_independent_items_the_interval_is_called_unreliable(run: Run) -> None:
    clusters = tuple(f"passage-{i // 2}" for i in range(40))
    few, many, shared = (
        made(run, "m", name, [float(i % 2) for i in range(n)], clusters=own)
        for name, n, own in (("few", 29, ()), ("many", 30, ()), ("shared", 40, clusters))
    )
    rows = scenario_rows([few, many, shared], QUICK, min_slice=2)
    assert [(row["items"], row["clusters"], row["reliable"]) for row in rows] == [(29, 29, False), (30, 30, True), (40, 20, False)]
    page = scenarios(ScenariosConfig(num_resamples=50), predictions=(few, many, shared), run=run)
    assert isinstance(page, Report)
    assert page.page.read_text(encoding="utf-8").count(">interval unreliable<") == 2


class Named(Table):
    def __init__(self, logprobs: Mapping[tuple[str, str], float], name: str):
        super().__init__(logprobs)
        self.name = name

    @property
    def identity(self) -> Identity:
        return {"engine": "table", "name": self.name}


def everything(run: Run) -> Report:
    """Two models, each with a choice task (sliced, disturbed) and one in words: every column is filled."""
    items = [Item(f"i{n}", f"Q {n}", ("yes", "no"), n % 2, facts={"slice": "north" if n % 3 else "south"}) for n in range(40)]
    found = []
    for name, shift in (("base", 1), ("tuned", 8)):
        p_yes = {str(n): 0.15 + 0.07 * ((3 * n + shift) % 11) for n in range(40)}
        disturbed = {n: 1 - p if int(n) % 5 == 0 else p for n, p in p_yes.items()}
        plain, variant = task_of(run, items, chance=0.5), task_of(run, items, chance=0.5, name="made_typos", variant_of="made")
        for task, probabilities in ((plain, p_yes), (variant, disturbed)):
            found.append(run_task(RunTaskConfig(cached=False), task=task, scorer=Named(table(probabilities).logprobs, name), run=run))
        asked = [Item(f"w{n}", f"W {n}", references=("fine",)) for n in range(12)]
        words = task_of(run, asked, name="words", form="generate", primary="f1")
        answers = ScriptedCompleter(lambda c, s=shift: "rotten" if int(c.question.split()[-1]) < 1 + s else "fine", name=name)
        found.append(run_task(RunTaskConfig(cached=False), task=words, completer=answers, run=run))
    made_of = scenarios(ScenariosConfig(num_resamples=50), predictions=tuple(found), embedder=StandIn(), run=run)
    assert isinstance(made_of, Report)
    return made_of


def test_a_page_with_every_column_filled(run: Run) -> None:
    report = everything(run)
    rows = {(row["task"], row["model"]): row for row in report.figures["scenarios"]}
    assert list(rows) == [("made", "base"), ("words", "base"), ("made", "tuned"), ("words", "tuned")]
    for model in ("base", "tuned"):
        chosen, said = rows["made", model], rows["words", model]
        assert all(chosen[column] is not None for column in ("accuracy", "calibration", "robustness", "fairness", "tokens_per_item"))
        assert chosen["robustness"] < chosen["accuracy"] and set(chosen["slices"]) == {"north", "south"}
        assert said["toxicity"] is not None and not said["reliable"] and chosen["reliable"]
    assert rows["words", "tuned"]["toxicity"] > 4 * rows["words", "base"]["toxicity"]  # nine of twelve against two
    assert rows["words", "base"]["accuracy"] == pytest.approx(10 / 12)
    assert all(row["seconds_per_item"] is not None for row in rows.values())
    page = report.page.read_text(encoding="utf-8")
    assert all(f"<td>{name}</td>" in page for name in ("north", "south"))


def test_the_page(run: Run) -> None:
    one = measured(run, task_of(run, ITEMS, name="<b>"), P_YES)
    other = measured(run, task_of(run, ITEMS), DISTURBED)
    report = scenarios(ScenariosConfig(num_resamples=50, min_slice=2), predictions=(one, other), run=run)
    assert isinstance(report, Report)
    page = report.page.read_text(encoding="utf-8")
    assert [row["task"] for row in report.figures["scenarios"]] == ["<b>", "made"]
    assert "&lt;b&gt;" in page and "<th>&lt;" in page and "http" not in page.replace("http-equiv", "")
    assert "gap between slices" in page and "--share: 100%" in page
