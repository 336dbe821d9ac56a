"""Two models by grades: each answer is graded alone, and the better grade wins the item.

A difference of at most `tie_within` is a tie. There is no place to prefer, as there is in pairs; but small differences between good
answers are lost, since the judge never sees them side by side.

Rows and facts are those of `judge_pairs`, with a grade for each side in place of the two orders: `judge_summary` and `judge_report` read
both. An item with a grade that could not be read is a row with `parsed` false and without a preference; it is counted, never a tie.

Source: Zheng et al. 2023, "Judging LLM-as-a-judge with MT-bench", arXiv:2306.05685, section 3.1 (single-answer grading); the tie of 0.1 as
        in FastChat's `llm_judge`, whose grades run from 1 to 10.
We differ: grades are expectations over the judge's own scale (1 to 5 unless its wording has another); FastChat leaves out answers that
its judge did not grade (-1) and pairs in error, which favours whoever made the judge stumble.
"""

from pydantic import NonNegativeFloat

from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.evaluate.judged import Row, both_answers, joined, pair_facts, parts
from mygpt.infer.judge import Grade, Judge

_ROUNDING = 1e-9  # 4.1 - 4.0 is a little more than 0.1


class GradedPairsConfig(Config):
    tie_within: NonNegativeFloat = 0.1  # grades
    at_once: int = 64  # items handed to the judge together: between them progress is shown


@recipe
def graded_pairs(config: GradedPairsConfig, *, first: Predictions, second: Predictions, judge: Judge, run: Run) -> Predictions:
    """`preference` is 1 where the first answer has the better grade, 0 where the second has, 1/2 for a tie."""
    pairs = joined([first, second])
    progress = run.progress(len(pairs), "pairs")
    rows: list[Row] = []
    for part in parts(pairs, config.at_once):
        both = [row for pair in part for row in pair]
        grades = judge.grade([row["question"] for row in both], [row["answer"] for row in both])
        rows += [_row(a, b, one, other, config.tie_within) for (a, b), one, other in zip(part, grades[::2], grades[1::2], strict=True)]
        progress.advance(len(part))
    by = {**judge.identity, "tie_within": config.tie_within}
    facts = pair_facts(first, second, rows, "judged by grades", by, run)
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)


def grade_preference(first: float | None, second: float | None, tie_within: float) -> float | None:
    """1, 1/2 or 0; None where a grade is missing."""
    if first is None or second is None:
        return None
    ahead = first - second
    return 0.5 if abs(ahead) <= tie_within + _ROUNDING else float(ahead > 0)


def _row(a: Row, b: Row, one: Grade, other: Grade, tie_within: float) -> Row:
    preference = grade_preference(one.value, other.value, tie_within)
    return {
        **both_answers(a, b),
        "preference": preference,
        "first_grade": one.value,
        "second_grade": other.value,
        "first_mass": one.reading.mass,
        "second_mass": other.reading.mass,
        "first_output": one.reading.output,
        "second_output": other.reading.output,
        "winner": None if preference is None else {1.0: "first", 0.5: "tie", 0.0: "second"}[preference],
        "parsed": preference is not None,
    }
