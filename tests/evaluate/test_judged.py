"""Judged pairs and grades, from rows to a win rate: by hand, with every way to be wrong."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from mygpt.artifacts.dataset import Conversation
from mygpt.artifacts.ratings import Rating, Ratings, ShownAnswer, write_ratings
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.judge_summary import agreement_with_people, summarise
from mygpt.evaluate.judged import JudgeConfig, judge_grades, judge_pairs
from mygpt.evaluate.same_items import join
from mygpt.infer.judge import Comparison, Grade, ModelJudge, Reading, Wording
from mygpt.infer.protocols import Identity
from mygpt.infer.scripted import ScriptedCompleter


class TableJudge:
    """`pairs[prompt]`: (P(a is better) with a first, with b first). Grades are the answers' own numbers."""

    def __init__(self, pairs: dict[str, tuple[float | None, float | None]] | None = None, name: str = "table"):
        self._pairs, self._name = pairs or {}, name
        self.calls: list[int] = []

    @property
    def identity(self) -> Identity:
        return {"judge": self._name, "pairs": self._pairs}

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> list[Comparison]:
        self.calls.append(len(prompts))
        return [Comparison(Reading(self._pairs[p][0], 0.5, "one"), Reading(self._pairs[p][1], 0.3, "two")) for p in prompts]

    def grade(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Grade]:
        self.calls.append(len(prompts))
        numbers = [float(a) if a else None for a in answers]
        return [Grade(Reading(n, 0.9, "n"), (0.5, 0.5) if n else ()) for n in numbers]


class MadeConfig(Config):
    rows: list[dict[str, Any]]
    facts: dict[str, Any] = Field(default_factory=dict)


@recipe
def answers(config: MadeConfig, *, run: Run) -> Predictions:
    return publish(Predictions, run, lambda folder: write_predictions(folder, config.rows), facts=config.facts)


class RatedConfig(Config):
    ratings: list[tuple[str, str, list[int]]]  # item, rater, ranks of first and second; [] cannot judge
    texts: dict[str, str] = Field(default_factory=dict)  # of the first, where they differ from what was judged


@recipe
def rated(config: RatedConfig, *, run: Run) -> Ratings:
    def row(item: str, rater: str, ranks: list[int]) -> Rating:
        shown = (ShownAnswer("one", config.texts.get(item, "x" * 10)), ShownAnswer("two", "x" * 10))
        return Rating(item, "?", shown, rater, "ranking" if ranks else "cannot judge", tuple(ranks), 1.0, "2026-11-21T16:00:00+00:00")

    return publish(Ratings, run, lambda folder: write_ratings(folder, [row(*r) for r in config.ratings]))


def rows(*numbers: int, answer: str = "x" * 10, **more: Any) -> list[dict[str, Any]]:
    return [{"item_id": f"i{n}", "question": f"q{n}", "answer": answer, **more} for n in numbers]


def pair(
    run: Run,
    table: dict[str, tuple[float | None, float | None]],
    second_answer: str = "x" * 10,
    first_answer: str = "x" * 10,
    **config: Any,
) -> Predictions:
    numbers = [int(prompt[1:]) for prompt in table]
    first = answers(MadeConfig(rows=rows(*numbers, answer=first_answer), facts={"model": "one"}), run=run)
    second = answers(MadeConfig(rows=rows(*reversed(numbers), answer=second_answer), facts={"model": "two"}), run=run)
    return judge_pairs(JudgeConfig(**config), first=first, second=second, judge=TableJudge(table), run=run)


# one win, one loss, one disagreement, one that could not be read in one order, one even
FIVE: dict[str, tuple[float | None, float | None]] = {
    "q1": (0.9, 0.7),
    "q2": (0.2, 0.2),
    "q3": (0.9, 0.3),
    "q4": (1.0, None),
    "q5": (0.5, 0.5),
}


def test_rows_keep_both_orders_and_what_could_not_be_read(run: Run) -> None:
    judged = pair(run, FIVE)
    by_id = {row["item_id"]: row for row in judged.rows}
    assert list(by_id) == ["i1", "i2", "i3", "i4", "i5"]  # the order of the first
    given = {"item_id": "i3", "cluster": "q3", "question": "q3", "first_answer": "x" * 10, "second_answer": "x" * 10}
    counted = {"first_length": 10, "second_length": 10, "winner": "tie", "consistent": False, "parsed": True}
    said = {"preference": 0.6, "forward": 0.9, "backward": 0.3, "forward_mass": 0.5, "backward_mass": 0.3}
    assert by_id["i3"] == {**given, **counted, **said, "forward_output": "one", "backward_output": "two"}
    lost = by_id["i4"]
    assert (lost["parsed"], lost["preference"], lost["winner"], lost["forward"], lost["backward"]) == (False, None, None, 1.0, None)
    facts = judged.manifest.facts
    told = {"first": "one", "second": "two", "items": 5, "unparsed": 1, "empty_answers": [0, 0]}
    assert {key: facts[key] for key in told} == told
    task = {"primary": "preference", "higher_is_better": {"preference": True}, "form": "judge", "model": "one"}
    assert {key: facts[key] for key in task} == task and facts["task"].endswith(", judged")
    assert judged.manifest.tools["judge"]["judge"] == "table"


def test_the_summary_by_hand(run: Run) -> None:
    """Preferences .8 .2 .6 .5: mean .525, with the unread one lost 2.1 / 5, won 3.1 / 5. The first place: .1 + 0 + .3 + 0 over 4."""
    summary = summarise(pair(run, FIVE), num_resamples=500)
    assert (summary.num_items, summary.num_prompts, summary.num_unparsed) == (5, 4, 1)
    assert (summary.wins, summary.losses, summary.ties) == (1, 1, 2)
    assert summary.win_rate.estimate == pytest.approx(0.525) and summary.counted_win_rate == 0.5
    assert (summary.lowest, summary.highest) == pytest.approx((2.1 / 5, 3.1 / 5))
    assert summary.swap_consistency == 0.75
    assert summary.position_bias.estimate == pytest.approx(0.1)
    assert summary.mean_mass == pytest.approx(0.4) and not summary.reliable
    assert summary.length_controlled.win_rate.estimate == pytest.approx(0.525, abs=1e-3) and summary.mean_length_difference == 0


def test_the_win_rate_of_mt_bench_by_hand(run: Run) -> None:
    """Written verdicts of both orders, ten items: both name the first in four, the second in two, once both say tie, twice the orders
    disagree, once a verdict is no verdict. W = 4, T = 3, N = 9: (4 + 1.5) / 9 = .611. MT-bench drops the last; here it is counted, and
    bounds the mean preference (5.75 of the nine, since one tie is half of A): 5.75 / 10 were it lost, 6.75 / 10 were it won."""
    said = ["AB"] * 4 + ["BA"] * 2 + ["CC", "AA", "CB", "A?"]
    given = [answers(MadeConfig(rows=rows(*range(10), answer=name), facts={"model": name}), run=run) for name in ("one", "two")]
    wording = Wording(compare="{prompt}|{first}|{second}", letters=(" A", " B", " C"))
    completer = ScriptedCompleter(lambda c: f"[[{said[int(c.question[1])][c.question.endswith('one')]}]]")
    judged = judge_pairs(JudgeConfig(), first=given[0], second=given[1], judge=ModelJudge(completer=completer, wording=wording), run=run)
    found = summarise(judged, num_resamples=200)
    assert (found.wins, found.losses, found.ties, found.num_unparsed, found.num_items) == (4, 2, 3, 1, 10)
    assert found.counted_win_rate == pytest.approx((4 + 0.5 * 3) / 9)
    assert found.win_rate.estimate == pytest.approx((4 + 0.5 + 0.5 + 0.75) / 9)
    assert (found.lowest, found.highest) == pytest.approx((5.75 / 10, 6.75 / 10))
    assert found.swap_consistency == pytest.approx(7 / 9)


def test_a_judge_of_length_is_found_out(run: Run) -> None:
    """60 answers 5 to 64 characters longer or, one in four, shorter: it says so, and at equal length nothing is left."""
    gaps = [(-1 if n % 4 == 0 else 1) * (5 + n) for n in range(60)]
    first = answers(MadeConfig(rows=[{**row, "answer": "x" * (100 + g)} for row, g in zip(rows(*range(60)), gaps, strict=True)]), run=run)
    second = answers(MadeConfig(rows=rows(*range(60), answer="x" * 100)), run=run)
    scale = math.sqrt(sum(g * g for g in gaps) / 60 - (sum(gaps) / 60) ** 2)
    likes = {f"q{n}": 1 / (1 + math.exp(-2 * math.tanh(g / scale))) for n, g in enumerate(gaps)}
    judge = TableJudge({prompt: (p, p) for prompt, p in likes.items()})
    summary = summarise(judge_pairs(JudgeConfig(), first=first, second=second, judge=judge, run=run), num_resamples=500)
    assert summary.win_rate.low > 0.55 and summary.reliable
    assert summary.length_controlled.win_rate.estimate == pytest.approx(0.5, abs=0.002)
    assert summary.length_controlled.slope == pytest.approx(2, abs=0.01)


def test_answers_to_one_prompt_are_drawn_together(run: Run) -> None:
    table = {f"q{n}": (0.9, 0.9) if n < 10 else (0.1, 0.1) for n in range(20)}
    made = {}
    for name, cluster in (("alone", None), ("together", "all of ten")):
        given = [{**row, "cluster": cluster and f"{int(row['item_id'][1:]) // 10}"} for row in rows(*range(20))]
        one = answers(MadeConfig(rows=given), run=run)
        judged = judge_pairs(JudgeConfig(), first=one, second=one, judge=TableJudge(table, name), run=run)
        made[name] = summarise(judged, num_resamples=2_000)
    assert made["alone"].num_prompts == 20 and made["together"].num_prompts == 2
    assert (made["together"].win_rate.low, made["together"].win_rate.high) == pytest.approx((0.1, 0.9))
    assert made["alone"].win_rate.low > 0.2


def test_in_parts_as_in_one_and_made_once(run: Run) -> None:
    first = answers(MadeConfig(rows=rows(1, 2, 3, 5)), run=run)
    judge = TableJudge(FIVE)
    whole = judge_pairs(JudgeConfig(), first=first, second=first, judge=judge, run=run)
    parts = judge_pairs(JudgeConfig(at_once=3), first=first, second=first, judge=judge, run=run)
    assert whole.rows == parts.rows and judge.calls == [4, 3, 1]
    assert judge_pairs(JudgeConfig(), first=first, second=first, judge=judge, run=run).digest == whole.digest
    assert judge.calls == [4, 3, 1]


def test_grades_are_predictions_of_a_task(run: Run) -> None:
    graded = [{**row, "answer": a} for row, a in zip(rows(1, 2, 3), ("4.5", "", "2"), strict=True)]
    given = answers(MadeConfig(rows=graded, facts={"task": "letters", "version": "2", "model": "one"}), run=run)
    made = judge_grades(JudgeConfig(), predictions=given, judge=TableJudge(), run=run)
    assert [(r["grade"], r["parsed"], r["output"], r["probabilities"]) for r in made.rows] == [
        (4.5, True, "n", [0.5, 0.5]),
        (None, False, "n", []),
        (2.0, True, "n", [0.5, 0.5]),
    ]
    facts = made.manifest.facts
    assert (facts["task"], facts["primary"], facts["higher_is_better"]) == ("letters, graded", "grade", {"grade": True})
    assert (facts["unparsed"], facts["empty_answers"], facts["model"]) == (1, 1, "one")
    other = judge_grades(JudgeConfig(), predictions=given, judge=TableJudge(name="other"), run=run)
    assert facts["version"].startswith("2/") and other.manifest.facts["version"] != facts["version"]  # never compared with each other


# -- people ---------------------------------------------------------------------------------------------------------------


def test_agreement_and_correction_by_hand(run: Run) -> None:
    """Judge: first first second second, and two more unrated. People: first tie second first (of two raters: 1 and .5, mean .75).

    Same verdict on two of four. Chance: first 2/4 * 2/4, second 2/4 * 1/4: 3/8. Kappa (1/2 - 3/8) / (5/8) = 1/5.
    Judge's mean .6; errors .8-1, .8-.5, .2-0, .2-.75: mean -.0625; corrected .6625.
    """
    table: dict[str, tuple[float | None, float | None]] = {f"q{n}": (p, p) for n, p in enumerate((0.8, 0.8, 0.2, 0.2, 0.8, 0.8))}
    judged = pair(run, {**table, "q6": (None, 0.5)})
    ratings = [("i0", "A", [1, 2]), ("i1", "A", [1, 1]), ("i2", "A", [2, 1]), ("i3", "A", [1, 2]), ("i3", "B", [1, 1])]
    people = rated(RatedConfig(ratings=[*ratings, ("i4", "A", []), ("i6", "A", [1, 2]), ("elsewhere", "A", [1, 2])]), run=run)
    found = agreement_with_people(judged, people, first="one", second="two")
    assert (found.num_labelled, found.num_unparsed, found.agreement) == (5, 1, 0.5)
    assert found.kappa == pytest.approx(0.2)
    assert found.win_rate.judge_alone == pytest.approx(0.6)
    assert found.win_rate.mean.estimate == pytest.approx(0.6625)
    assert (found.win_rate.num_items, found.win_rate.num_labelled) == (6, 4)
    turned = agreement_with_people(judged, people, first="two", second="one")
    assert turned.win_rate.people_alone.estimate == pytest.approx(1 - found.win_rate.people_alone.estimate)


def test_people_and_judge_must_have_seen_the_same(run: Run) -> None:
    judged = pair(run, FIVE)
    two = [("i1", "A", [1, 2]), ("i2", "A", [1, 2])]
    with pytest.raises(UsageError, match=r"1 ratings in .* are of other answers .* item i2"):
        agreement_with_people(judged, rated(RatedConfig(ratings=two, texts={"i2": "edited"}), run=run), first="one", second="two")
    with pytest.raises(UsageError, match=r"1 pairs of .* have both") as error:
        agreement_with_people(judged, rated(RatedConfig(ratings=two[:1]), run=run), first="one", second="two")
    assert "Systems that were rated: one, two." in error.value.fix
    with pytest.raises(UsageError, match="0 pairs"):
        agreement_with_people(judged, rated(RatedConfig(ratings=two), run=run), first="one", second="three")


# -- what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("second", "facts", "words"),
    [
        (rows(1, 2), {}, r"3 items and .* 2: 1 of the first are missing in the second \(i3\), 0 are only there \(none\)"),
        (rows(1, 2, 3, 4), {}, r"0 of the first are missing in the second \(none\), 1 are only there \(i4\)"),
        (rows(1, 2, 3, 3), {}, r"1 item ids of .* occur more than once: i3"),
        ([*rows(1, 2), {**rows(3)[0], "question": "other"}], {}, r"1 items of .* have another question: i3"),
        ([*rows(1, 2), {**rows(3)[0], "answer": None}], {}, r"1 of 3 rows of .* have no `answer`: i3"),
        ([{"item_id": "i1", "question": "q"}] * 2, {}, r"2 of 2 rows of .* have no `answer`"),
        (rows(1), {}, r"has 1 items; a judgement needs 2"),
        (rows(1, 2, 3), {"task": "t", "version": "2"}, r"different versions: 1, 2"),
        (rows(1, 2, 3), {"task": "u", "version": "1"}, r"different tasks: t, u"),
    ],
)
def test_answers_that_do_not_belong_together(run: Run, second: list[dict[str, Any]], facts: dict[str, Any], words: str) -> None:
    first = answers(MadeConfig(rows=rows(1, 2, 3), facts={"task": "t", "version": "1"} if facts else {}), run=run)
    other = answers(MadeConfig(rows=second, facts=facts), run=run)
    with pytest.raises(UsageError, match=words):
        judge_pairs(JudgeConfig(), first=first, second=other, judge=TableJudge(), run=run)


def test_a_judge_that_says_nothing_is_no_judge(run: Run) -> None:
    heard: list[dict[str, Any]] = []
    run.listeners.append(heard.append)
    judged = pair(run, {"q1": (None, None), "q2": (0.5, None), "q3": (0.6, 0.6)})
    assert [e["text"] for e in heard if e["event"] == "warning"] == [
        "2 of 3 verdicts of the judge could not be read. Their rows are kept, without a value."
    ]
    assert len(judged.rows) == 3 and judged.manifest.facts["unparsed"] == 2
    with pytest.raises(UsageError, match=r"Of 3 verdicts in .* only 1 could be read"):
        summarise(judged)
    with pytest.raises(UsageError, match="holds no judged pairs"):
        summarise(answers(MadeConfig(rows=rows(1, 2)), run=run))


def test_one_prompt_has_no_interval(run: Run) -> None:
    one = answers(MadeConfig(rows=rows(1, 2, 3, cluster="same")), run=run)
    with pytest.raises(UsageError, match=r"All 3 pairs of .* come from one prompt"):
        summarise(judge_pairs(JudgeConfig(), first=one, second=one, judge=TableJudge({f"q{n}": (0.9, 0.9) for n in (1, 2, 3)}), run=run))


def test_a_model_that_writes_its_verdicts(run: Run) -> None:
    """It names the longer answer, and says more than it should about the third: that is a row, and no tie."""

    def says(conversation: Conversation) -> str:
        question, first, second = conversation.question.split("|")
        return "I think A" if question == "q3" else "A" if len(first) > len(second) else "B"

    judge = ModelJudge(completer=ScriptedCompleter(says), wording=Wording(compare="{prompt}|{first}|{second}"))
    first = answers(MadeConfig(rows=rows(1, 2, 3, answer="longer"), facts={"model": "one"}), run=run)
    second = answers(MadeConfig(rows=rows(1, 2, 3, answer="short"), facts={"model": "two"}), run=run)
    judged = judge_pairs(JudgeConfig(), first=first, second=second, judge=judge, run=run)
    assert [(r["preference"], r["winner"], r["forward_output"], r["backward_output"]) for r in judged.rows] == [
        (1.0, "first", "A", "B"),
        (1.0, "first", "A", "B"),
        (None, None, "I think A", "I think A"),
    ]
    assert judged.manifest.tools["judge"]["completer"] == {"engine": "scripted", "name": "scripted"}
    summary = summarise(judged, num_resamples=50)
    assert (summary.wins, summary.ties, summary.num_unparsed, summary.mean_mass) == (2, 0, 1, None)
    assert (summary.lowest, summary.highest) == pytest.approx((2 / 3, 1.0))


def test_grades_of_two_models_can_be_compared_as_a_task(run: Run) -> None:
    made = []
    for name, grades in (("one", "345"), ("two", "335")):
        graded = [{**row, "answer": a} for row, a in zip(rows(1, 2, 3), grades, strict=True)]
        given = answers(MadeConfig(rows=graded, facts={"task": "letters", "version": "2", "model": name}), run=run)
        made.append(judge_grades(JudgeConfig(), predictions=given, judge=TableJudge(), run=run))
    [task] = join(made)
    assert (task.task, task.primary, task.is_higher_better("grade")) == ("letters, graded", "grade", True)
    assert (task.values("one", "grade") - task.values("two", "grade")).tolist() == [0.0, 1.0, 0.0]


def test_empty_answers_are_judged_and_counted(run: Run, tmp_path: Path) -> None:
    judged = pair(run, {"q1": (0.9, 0.9), "q2": (0.8, 0.9)}, second_answer=" ")
    assert judged.manifest.facts["empty_answers"] == [0, 2] and summarise(judged, num_resamples=50).wins == 2
