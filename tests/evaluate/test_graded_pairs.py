"""Two models by grades, from a table of verdicts to the win rate of MT-bench."""

import pytest

from mygpt.artifacts.report import Predictions
from mygpt.core.run import Run
from mygpt.evaluate.graded_pairs import GradedPairsConfig, grade_preference, graded_pairs
from mygpt.evaluate.judge_report import JudgeReportConfig, judge_report
from mygpt.evaluate.judge_summary import summarise
from tests.evaluate.test_judged import MadeConfig, TableJudge, answers, rows

# 1 to 10: won by 2, lost by 0.2, ties at 0, 0.1 either way; one grade that was not written
GRADES = [("8", "6"), ("7.3", "7.5"), ("5", "5"), ("9.1", "9"), ("2.9", "3"), ("10", "9.8"), ("", "4")]


def graded(run: Run, grades: list[tuple[str, str]] = GRADES, judge: TableJudge | None = None, **config: float) -> Predictions:
    sides = [
        answers(
            MadeConfig(
                rows=[{**row, "answer": pair[side]} for row, pair in zip(rows(*range(len(grades))), grades, strict=True)],
                facts={"model": name},
            ),
            run=run,
        )
        for side, name in ((0, "one"), (1, "two"))
    ]
    made = graded_pairs(GradedPairsConfig(**config), first=sides[0], second=sides[1], judge=judge or TableJudge(), run=run)
    assert isinstance(made, Predictions)
    return made


@pytest.mark.parametrize(
    ("first", "second", "preference"),
    [
        (8, 6, 1.0),
        (6, 8, 0.0),
        (7, 7, 0.5),
        (7.1, 7.0, 0.5),
        (7.0, 7.1, 0.5),
        (4.1, 4.0, 0.5),
        (7.11, 7.0, 1.0),
        (7.0, 7.11, 0.0),
        (None, 7, None),
        (7, None, None),
    ],
)
def test_a_tie_is_a_difference_of_a_tenth_at_most(first: float | None, second: float | None, preference: float | None) -> None:
    assert grade_preference(first, second, 0.1) == preference


def test_the_win_rate_by_hand(run: Run) -> None:
    """Six graded on both sides: two won, one lost, three tied. (2 + 3 / 2) / 6 = 7/12; with the unread one between 3.5/7 and 4.5/7."""
    made = graded(run)
    assert [row["winner"] for row in made.rows] == ["first", "second", "tie", "tie", "tie", "first", None]
    assert [row["preference"] for row in made.rows] == [1.0, 0.0, 0.5, 0.5, 0.5, 1.0, None]
    assert (made.rows[0]["first_grade"], made.rows[0]["second_grade"], made.rows[6]["first_grade"]) == (8.0, 6.0, None)
    found = summarise(made, num_resamples=200)
    assert (found.wins, found.losses, found.ties, found.num_unparsed, found.num_items) == (2, 1, 3, 1, 7)
    assert found.counted_win_rate == found.win_rate.estimate == pytest.approx(7 / 12)
    assert (found.lowest, found.highest) == pytest.approx((3.5 / 7, 4.5 / 7))
    assert (found.swap_consistency, found.position_bias, found.mean_mass) == (None, None, pytest.approx(0.9))


def test_what_was_not_graded_is_kept_and_said(run: Run) -> None:
    heard: list[str] = []
    run.listeners.append(lambda event: heard.append(event.get("text", "")))
    made = graded(run)
    assert "1 of 7 verdicts of the judge could not be read. Their rows are kept, without a value." in heard
    facts = made.manifest.facts
    assert (facts["items"], facts["unparsed"], facts["empty_answers"], facts["primary"]) == (7, 1, [1, 0], "preference")


def test_another_tie_is_another_version(run: Run) -> None:
    narrow = graded(run, tie_within=0.0)
    assert [row["winner"] for row in narrow.rows] == ["first", "second", "tie", "first", "second", "first", None]
    assert narrow.manifest.facts["version"] != graded(run).manifest.facts["version"]
    with pytest.raises(ValueError, match="tie_within"):
        graded(run, tie_within=-1)


def test_on_the_page_of_judged_pairs(run: Run) -> None:
    report = judge_report(JudgeReportConfig(num_resamples=100), predictions=(graded(run),), run=run)
    [pair] = report.figures["pairs"]
    assert (pair["wins"], pair["position_bias"], pair["swap_consistency"]) == (2, None, None)
    assert "0.583" in report.page.read_text(encoding="utf-8")
    [ranked] = report.figures["rankings"]
    assert [row["system"] for row in ranked["systems"]] == ["one", "two"]


def test_in_parts_as_in_one(run: Run) -> None:
    judge = TableJudge()
    assert graded(run, judge=judge, at_once=3).rows == graded(run).rows
    assert judge.calls == [6, 6, 2]
