"""The judge report: figures by hand, people beside the judge, a ranking of three systems, and what is refused."""

import math
from typing import Any

import pytest

from mygpt.artifacts.ratings import Rating, Ratings, ShownAnswer, write_ratings
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, Report
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.judge_report import JudgeReportConfig, judge_report
from mygpt.evaluate.judged import JudgeConfig, judge_pairs
from tests.evaluate.test_judged import FIVE, MadeConfig, RatedConfig, TableJudge, answers, pair, rated, rows

QUICK = {"num_resamples": 200}


class ThreeConfig(Config):
    ranks: list[list[int]]  # of one, two, three, prompt by prompt


@recipe
def three(config: ThreeConfig, *, run: Run) -> Ratings:
    shown = tuple(ShownAnswer(name, name) for name in ("one", "two", "three"))
    listed = [
        Rating(f"i{n}", "?", shown, "Ann", "ranking", tuple(ranks), 1.0, f"2026-11-21T16:00:{n:02}+00:00")
        for n, ranks in enumerate(config.ranks)
    ]
    return publish(Ratings, run, lambda folder: write_ratings(folder, listed))


def report_of(run: Run, *judged: Predictions, **inputs: Any) -> Report:
    made = judge_report(JudgeReportConfig(**QUICK), predictions=judged, run=run, **inputs)
    assert isinstance(made, Report)
    return made


def test_figures_by_hand(run: Run) -> None:
    """The five pairs of `test_judged`: win rate .525, one win, one loss, two ties, one unread; as strong as each other."""
    report = report_of(run, pair(run, FIVE))
    [found] = report.figures["pairs"]
    assert (found["first"], found["second"], found["win_rate"]["estimate"]) == ("one", "two", pytest.approx(0.525))
    assert (found["wins"], found["losses"], found["ties"], found["num_unparsed"], found["reliable"]) == (1, 1, 2, 1, False)
    [ranked] = report.figures["rankings"]
    assert {row["system"]: row["strength"]["estimate"] for row in ranked["systems"]} == pytest.approx({"one": 0.0, "two": 0.0}, abs=1e-9)
    page = report.page.read_text(encoding="utf-8")
    assert "interval unreliable" in page and "0.525" in page
    assert report.manifest.facts["sentences"][0].endswith("1 of 5 verdicts could not be read.")


def test_three_of_four_wins(run: Run) -> None:
    """Odds of 3: ln 3 apart, half of that to each side of the average; the prior takes a little."""
    table = {"q1": (0.9, 0.9), "q2": (0.8, 0.8), "q3": (0.7, 0.9), "q4": (0.1, 0.2)}
    [ranked] = report_of(run, pair(run, table)).figures["rankings"]  # type: ignore[arg-type]
    best, last = ranked["systems"]
    assert best["system"] == "one" and best["strength"]["estimate"] == pytest.approx(math.log(3) / 2, abs=0.01)
    assert best["strength"]["estimate"] == pytest.approx(-last["strength"]["estimate"])
    assert best["elo"] > 1000 > last["elo"]


def test_what_length_won_is_gone_at_equal_style(run: Run) -> None:
    """The longer answer wins four of five, whoever wrote it; `one` writes it on 30 of 40 prompts. Raw .65; at equal style .5, and ln 4."""
    longer = [n < 30 for n in range(40)]
    won = [n % 5 != 0 if n < 30 else n % 5 == 0 for n in range(40)]  # 24 of 30, 2 of 10
    sides = [
        answers(
            MadeConfig(
                rows=[
                    {**row, "answer": "x" * (299 if long is is_one else 100)} for row, long in zip(rows(*range(40)), longer, strict=True)
                ],
                facts={"model": name},
            ),
            run=run,
        )
        for name, is_one in (("one", True), ("two", False))
    ]
    judge = TableJudge({f"q{n}": (1.0, 1.0) if first else (0.0, 0.0) for n, first in enumerate(won)})
    judged = judge_pairs(JudgeConfig(), first=sides[0], second=sides[1], judge=judge, run=run)
    report = report_of(run, judged)
    [found], [ranked] = report.figures["pairs"], report.figures["rankings"]
    assert (found["win_rate"]["estimate"], found["counted_win_rate"]) == (0.65, 0.65)
    controlled = found["style_controlled"]
    assert controlled["win_rate"]["estimate"] == pytest.approx(0.5, abs=0.001)
    assert controlled["effects"]["characters"]["estimate"] == pytest.approx(math.log(4), abs=0.005) and list(controlled["effects"]) == [
        "characters"
    ]
    assert ranked["systems"][0]["strength"]["estimate"] == pytest.approx(math.log(0.65 / 0.35) / 2, abs=0.005)
    assert [row["at_equal_style"]["estimate"] for row in ranked["systems"]] == pytest.approx([0.0, 0.0], abs=0.002)
    assert ranked["style_effects"]["characters"]["estimate"] == pytest.approx(math.log(4), abs=0.005)
    assert "at equal style 0.500" in report.manifest.facts["sentences"][0]
    page = report.page.read_text(encoding="utf-8")
    assert "characters\n    +1.38" in page and "At equal style" in page


def test_people_beside_the_judge(run: Run) -> None:
    """Judge 1 1 0 1 1 0, people on the first three 1 0 0: the judge says 4/6, corrected 1/3."""
    sure = {f"q{n}": ((1.0, 1.0) if n in (1, 2, 4, 5) else (0.0, 0.0)) for n in range(1, 7)}
    said = [(f"i{n}", "Ann", [1, 2] if n == 1 else [2, 1]) for n in (1, 2, 3)]
    report = report_of(run, pair(run, sure), ratings=rated(RatedConfig(ratings=said), run=run))  # type: ignore[arg-type]
    [found] = report.figures["pairs"]
    assert found["win_rate"]["estimate"] == pytest.approx(4 / 6)
    assert found["people"]["win_rate"]["mean"]["estimate"] == pytest.approx(1 / 3)
    assert [ranked["by"] for ranked in report.figures["rankings"]] == ["the judge", "people"]
    assert "corrected by people 0.333" in report.manifest.facts["sentences"][0]


def test_people_rank_three_systems(run: Run) -> None:
    """Thirty prompts: one always before two, and two before three in twenty of them. The strengths say so, and Elo stands beside them."""
    ratings = three(ThreeConfig(ranks=[[1, 2, 3]] * 20 + [[1, 3, 2]] * 10), run=run)
    [judged, people] = report_of(run, pair(run, FIVE, second_answer="two", first_answer="one"), ratings=ratings).figures["rankings"]
    assert (people["comparisons"], people["prompts"], people["reliable"]) == (90, 30, True) and not judged["reliable"]
    assert [row["system"] for row in people["systems"]] == ["one", "two", "three"]
    two, three_ = (row["strength"]["estimate"] for row in people["systems"][1:])
    assert two - three_ == pytest.approx(math.log(2), abs=0.02)  # twenty of thirty: odds of two
    assert all(row["strength"]["low"] <= row["strength"]["estimate"] <= row["strength"]["high"] for row in people["systems"])
    points = [row["elo"] for row in people["systems"]]
    assert points[0] > points[1] and sum(points) == pytest.approx(3000)


def test_systems_that_nothing_links_are_refused(run: Run) -> None:
    def judged(first: str, second: str) -> Predictions:
        sides = [answers(MadeConfig(rows=rows(1, 2, 3), facts={"model": name}), run=run) for name in (first, second)]
        judge = TableJudge({f"q{n}": (0.9, 0.8) for n in (1, 2, 3)})
        made = judge_pairs(JudgeConfig(), first=sides[0], second=sides[1], judge=judge, run=run)
        assert isinstance(made, Predictions)
        return made

    with pytest.raises(UsageError, match="What the judge said gives no ranking: 2 groups"):
        report_of(run, judged("a", "b"), judged("c", "d"))
    chain = report_of(run, judged("a", "b"), judged("b", "c"))
    assert [row["system"] for row in chain.figures["rankings"][0]["systems"]] == ["a", "b", "c"]
    with pytest.raises(UsageError, match=r"Both sides of .* are called `a`"):
        report_of(run, judged("a", "a"))
