"""What a judge says of answers, item by item: two models against each other, or one model graded.

judge_pairs     first against second on the same items, every pair in both orders; as a task, the first's: metric `preference`, 0.5 is even
judge_grades    each answer from 1 to 5

`evaluate/graded_pairs` compares two models by grades.

Rows keep the raw numbers of both orders and what the judge wrote. A verdict that could not be read is a row with `parsed` false and
without a preference; `judge_summary` counts it.

Source: see `infer/judge`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.core.config import Config
from mygpt.core.digest import digest_value
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.infer.judge import Comparison, Grade, Judge
from mygpt.infer.protocols import Identity

Row = dict[str, Any]
_FEWEST = 2
_MEASURE_AGAIN = "Let all models answer the same items of one version of the task."


class JudgeConfig(Config):
    at_once: int = 64  # pairs or answers handed to the judge together: between them progress is shown


@recipe
def judge_pairs(config: JudgeConfig, *, first: Predictions, second: Predictions, judge: Judge, run: Run) -> Predictions:
    """`preference` is the chance that the first answer is better. Items are joined by `item_id`; any difference between them is refused."""
    pairs = joined([first, second])
    progress = run.progress(len(pairs), "pairs")
    rows: list[Row] = []
    for part in parts(pairs, config.at_once):
        questions = [a["question"] for a, _ in part]
        compared = judge.compare(questions, [a["answer"] for a, _ in part], [b["answer"] for _, b in part])
        rows += [_pair_row(a, b, comparison) for (a, b), comparison in zip(part, compared, strict=True)]
        progress.advance(len(part))
    facts = pair_facts(first, second, rows, "judged", judge.identity, run)
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)


@recipe
def judge_grades(config: JudgeConfig, *, predictions: Predictions, judge: Judge, run: Run) -> Predictions:
    """`grade` is the expectation over the scale. The rows are those of a task whose primary metric is the grade by this judge."""
    answered = [row for (row,) in joined([predictions])]
    progress = run.progress(len(answered), "answers")
    rows: list[Row] = []
    for part in parts(answered, config.at_once):
        grades = judge.grade([row["question"] for row in part], [row["answer"] for row in part])
        rows += [_grade_row(row, grade) for row, grade in zip(part, grades, strict=True)]
        progress.advance(len(part))
    facts = {
        **_judged_facts(predictions, "graded", "grade", judge.identity),
        "items": len(rows),
        "unparsed": _say_unparsed(rows, run),
        "empty_answers": sum(not row["answer"].strip() for row in rows),
    }
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)


def pair_facts(first: Predictions, second: Predictions, rows: Sequence[Row], how: str, by: Identity, run: Run) -> dict[str, Any]:
    """Of rows with a `preference` for the first; `by` is the judge, and how its word was taken. Says aloud what could not be read."""
    return {
        **_judged_facts(first, how, "preference", [by, second.digest]),
        "first": _called(first),
        "second": _called(second),
        "items": len(rows),
        "unparsed": _say_unparsed(rows, run),
        "empty_answers": [sum(not row[f"{side}_answer"].strip() for row in rows) for side in ("first", "second")],
    }


def _judged_facts(of: Predictions, how: str, metric: str, by: Any) -> dict[str, Any]:
    """Those of a task. Verdicts of two judges, or against two opponents, are of different versions: they are not comparable."""
    given = of.manifest.facts
    return {
        "task": f"{given.get('task', of.name)}, {how}",
        "version": f"{given.get('version', '-')}/{digest_value(by)[:8]}",
        "form": "judge",
        "primary": metric,
        "metrics": [metric],
        "higher_is_better": {metric: True},
        "chance": None,
        "model": _called(of),
    }


def joined(predictions: Sequence[Predictions]) -> list[tuple[Row, ...]]:
    """The rows of each item, one per Predictions, in the order of the first. Raises UsageError where they are not the same items."""
    for fact in ("task", "version"):
        said = {str(one.manifest.facts.get(fact)) for one in predictions}
        if len(said) > 1:
            raise UsageError(f"These answers are of different {fact}s: {', '.join(sorted(said))}.", fix=_MEASURE_AGAIN)
    by_id = [_by_id(one) for one in predictions]
    first, first_rows = predictions[0], by_id[0]
    for other, rows in zip(predictions[1:], by_id[1:], strict=True):
        missing, more = [i for i in first_rows if i not in rows], [i for i in rows if i not in first_rows]
        if missing or more:
            raise UsageError(
                f"{first.id} has {len(first_rows)} items and {other.id} {len(rows)}: {len(missing)} of the first are missing in the second "
                f"({_listed(missing)}), {len(more)} are only there ({_listed(more)}).",
                fix=_MEASURE_AGAIN,
            )
        changed = [i for i in first_rows if first_rows[i]["question"] != rows[i]["question"]]
        if changed:
            raise UsageError(f"{len(changed)} items of {other.id} have another question: {_listed(changed)}.", fix=_MEASURE_AGAIN)
    return [tuple(rows[item] for rows in by_id) for item in first_rows]


def _by_id(predictions: Predictions) -> dict[str, Row]:
    rows = predictions.rows
    if len(rows) < _FEWEST:
        raise UsageError(f"{predictions.id} has {len(rows)} items; a judgement needs {_FEWEST} at the very least.", fix="Ask more items.")
    for column in ("item_id", "question", "answer"):
        without = [str(row.get("item_id")) for row in rows if not isinstance(row.get(column), str)]
        if without:
            raise UsageError(
                f"{len(without)} of {len(rows)} rows of {predictions.id} have no `{column}`: {_listed(without)}.",
                fix="Judge answers in words: those of a `generate` task.",
            )
    twice = [item for item, count in Counter(row["item_id"] for row in rows).items() if count > 1]
    if twice:
        raise UsageError(
            f"{len(twice)} item ids of {predictions.id} occur more than once: {_listed(twice)}.", fix="Give each item its own."
        )
    return {row["item_id"]: row for row in rows}


def both_answers(a: Row, b: Row) -> Row:
    """What any judged pair has."""
    return {
        "item_id": a["item_id"],
        "cluster": _cluster(a),
        "question": a["question"],
        "first_answer": a["answer"],
        "second_answer": b["answer"],
        "first_length": len(a["answer"]),  # characters
        "second_length": len(b["answer"]),
    }


def _pair_row(a: Row, b: Row, comparison: Comparison) -> Row:
    forward, backward = comparison.forward, comparison.backward
    return {
        **both_answers(a, b),
        "preference": comparison.preference,
        "forward": forward.value,  # P(first is better), first shown first
        "backward": backward.value,  # P(first is better), second shown first
        "forward_mass": forward.mass,
        "backward_mass": backward.mass,
        "forward_output": forward.output,
        "backward_output": backward.output,
        "winner": {"a": "first", "b": "second"}.get(comparison.winner or "", comparison.winner),
        "consistent": comparison.consistent,
        "parsed": comparison.preference is not None,
    }


def _grade_row(row: Row, grade: Grade) -> Row:
    return {
        "item_id": row["item_id"],
        "cluster": _cluster(row),
        "question": row["question"],
        "reference": row.get("reference"),
        "answer": row["answer"],
        "grade": grade.value,
        "probabilities": list(grade.probabilities),
        "mass": grade.reading.mass,
        "output": grade.reading.output,
        "parsed": grade.value is not None,
    }


def _cluster(row: Row) -> str:
    """Items of one passage or prompt rise and fall together."""
    return row.get("cluster") or row.get("passage") or row["question"]


def _say_unparsed(rows: Sequence[Row], run: Run) -> int:
    unparsed = sum(not row["parsed"] for row in rows)
    if unparsed:
        run.warn(f"{unparsed} of {len(rows)} verdicts of the judge could not be read. Their rows are kept, without a value.")
    return unparsed


def _called(predictions: Predictions) -> Any:
    return predictions.manifest.facts.get("model", predictions.name)


def parts(items: Sequence[Any], at_once: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), max(1, at_once)):
        yield items[start : start + max(1, at_once)]


def _listed(ids: Iterable[str], most: int = 5) -> str:
    ids = list(ids)
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "") or "none"
