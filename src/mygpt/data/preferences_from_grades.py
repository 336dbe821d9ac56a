"""Graded answers as pairs to learn from: of two answers to one prompt the one with the higher grade is preferred.

Grades are numbers, or right and wrong: solutions that a program checked, completions that a judge scored. A file has one answer a row, or
several in a row: in columns of their own, or in one column that is a list. `answers` names those columns; what `text` and `grade` are
called inside them follows:

    {"question": "...", "6b": {"solution": "...", "is_correct": false}, "175b": {...}}   answers=[6b,175b] text=solution grade=is_correct
    {"instruction": "...", "completions": [{"response": "...", "fine-grained_score": 4.2}, ...]}   answers=[completions] text=response ...
    {"question": "...", "answer": "...", "correct": true}                                 one answer a row: the default

Or Predictions of `mygpt evaluate harness` with `samples`: a model's own answers, graded by the task. Of each prompt at most
`pairs_per_prompt` are drawn, the answers as evenly as can be. Prompts that give no pair are kept with a reason.

Source: Cobbe et al. 2021, arXiv:2110.14168 (solutions graded by their last number); Cui et al. 2023, arXiv:2310.01377, and Ouyang et al.
        2022, arXiv:2203.02155, section 3.5 (pairs of graded or ranked answers to one prompt stay together)
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any

from pydantic import Field

from mygpt.artifacts.dataset import Conversation, Dataset, Dropped, Message, Preference, preference_facts, write_preferences
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions
from mygpt.artifacts.rows import Row, read_rows
from mygpt.core.config import Config
from mygpt.core.digest import digest_text
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.data.row_splits import opening, train_and_test


class PreferencesFromGradesConfig(Config):
    """What the file calls its columns."""

    prompt: str = "question"
    answers: tuple[str, ...] = ()  # columns with answers; (): every row is one
    text: str = "answer"
    grade: str = ""  # default: `correct`; of Predictions the metric that decides their task
    author: str = "model"  # who wrote an answer, where its column does not say
    least_difference: Annotated[float, Field(ge=0)] = 0.0  # grades that differ by no more give no pair
    pairs_per_prompt: Annotated[int, Field(ge=1)] = 4
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.2  # of the prompts


@dataclass(frozen=True)
class GradedAnswer:
    text: str
    grade: float
    author: str
    place: str  # where it stands: file and row


@recipe
def preferences_from_grades(
    config: PreferencesFromGradesConfig, *, source: Path | None = None, predictions: Predictions | None = None, run: Run
) -> Dataset:
    """Splits `train` and `test`, apart by prompt."""
    if (source is None) == (predictions is None):
        raise UsageError("Graded answers come from one place.", fix="Give `--source FILE` or `--predictions NAME`.")
    if predictions is not None:
        listed = [Row(values, Path(predictions.id), number) for number, values in enumerate(predictions.rows, 1)]
        config = config.model_copy(update={"grade": config.grade or str(predictions.manifest.facts.get("primary", ""))})
    else:
        assert source is not None
        listed = read_rows(source)
    by_prompt: dict[str, list[GradedAnswer]] = defaultdict(list)
    for row in listed:
        by_prompt[row.text(config.prompt)] += graded_answers(row, config)
    rows: list[Preference] = []
    dropped: list[Dropped] = []
    for prompt, answers in by_prompt.items():
        found = drawn_pairs(answers, config, run.random(f"pairs of {prompt}"))
        rows += [_preference(prompt, better, worse) for better, worse in found]
        if not found:
            reason = "with one answer" if len(answers) < 2 else "no two answers of different grades"
            dropped.append(Dropped(reason, Conversation((Message("user", prompt),), _id(prompt)), detail=f"{len(answers)} answers"))
    if not rows:
        raise UsageError(f"None of the {len(by_prompt)} prompts has two answers of different grades.", fix="Give more answers to each.")
    order = run.random("held out")
    splits = train_and_test(rows, None, share=config.held_out_share, text_of=opening, order=order, run=run)
    facts = {**preference_facts(splits, dropped), "prompts": len(by_prompt), "answers": sum(map(len, by_prompt.values()))}
    return publish(Dataset, run, lambda folder: write_preferences(folder, splits, dropped), facts=facts)


def graded_answers(row: Row, config: PreferencesFromGradesConfig) -> Iterator[GradedAnswer]:
    """Of one row. An empty answer is none: nothing is learnt from it."""
    grade = config.grade or "correct"
    parts: list[tuple[str, Row]] = [("", row)] if not config.answers else []
    for column in config.answers:
        held = row.get(column)
        if isinstance(held, Mapping):
            parts.append((column, row.mapping(column)))
        elif isinstance(held, Sequence) and all(isinstance(one, Mapping) for one in held) and not isinstance(held, str):
            parts += [(f"{column}[{number}]", Row(one, row.file, row.number)) for number, one in enumerate(held)]
        else:
            raise UsageError(f"{row.place}: the field `{column}` holds no answers.", fix=f"An answer is an object with `{config.text}`.")
    for name, part in parts:
        text = str(part.get(config.text)).strip()
        author = str(part.values.get(config.author) or name or part.number)
        if text:
            yield GradedAnswer(text, _grade(part, grade), author, f"{row.file.name}/{row.number}")


def drawn_pairs(
    answers: Sequence[GradedAnswer], config: PreferencesFromGradesConfig, random: Random
) -> list[tuple[GradedAnswer, GradedAnswer]]:
    """(better, worse). Equal texts are one answer, and none where they were graded differently."""
    grades: dict[str, set[float]] = defaultdict(set)
    for answer in answers:
        grades[answer.text].add(answer.grade)
    distinct = [one for one in {answer.text: answer for answer in reversed(answers)}.values() if len(grades[one.text]) == 1][::-1]
    left = [(b, w) for b in distinct for w in distinct if b.grade - w.grade > config.least_difference]
    random.shuffle(left)
    used: Counter[str] = Counter()
    found: list[tuple[GradedAnswer, GradedAnswer]] = []
    while left and len(found) < config.pairs_per_prompt:
        pair = min(left, key=lambda pair: used[pair[0].text] + used[pair[1].text])
        left.remove(pair)
        found.append(pair)
        used.update(answer.text for answer in pair)
    return found


def _preference(prompt: str, better: GradedAnswer, worse: GradedAnswer) -> Preference:
    return Preference(
        prompt=(Message("user", prompt),),
        chosen=better.text,
        rejected=worse.text,
        id=f"{_id(prompt)}/{better.author}/{worse.author}",
        facts={
            "chosen": better.author,
            "rejected": worse.author,
            "score_chosen": f"{better.grade:.6g}",
            "score_rejected": f"{worse.grade:.6g}",
            "score_margin": f"{better.grade - worse.grade:.6g}",
            "source": better.place if better.place == worse.place else f"{better.place}, {worse.place}",
        },
    )


def _id(prompt: str) -> str:
    return digest_text(prompt)[:12]


def _grade(part: Row, column: str) -> float:
    value: Any = part.get(column)
    words = {"true": 1.0, "false": 0.0, "right": 1.0, "wrong": 0.0, "correct": 1.0, "incorrect": 0.0}
    try:
        return words[str(value).strip().lower()] if str(value).strip().lower() in words else float(value)
    except (TypeError, ValueError) as error:
        what = f"{part.place}: the grade `{column}` is {value!r}, neither a number nor right or wrong."
        raise UsageError(what, fix="Name the column with the grade: `--set grade=NAME`.") from error
