"""Graded answers as pairs: by hand in each form of file, capped and balanced, apart by prompt, and all of GSM8K's model solutions."""

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.data.preferences_from_grades import GradedAnswer, PreferencesFromGradesConfig, drawn_pairs, preferences_from_grades

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def read(run: Run, folder: Path, rows: list[dict[str, Any]], **settings: Any) -> Dataset:
    (folder / "graded.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = PreferencesFromGradesConfig(**{"held_out_share": 0, **settings})
    return preferences_from_grades(config, source=folder / "graded.jsonl", run=run)


def said(found: Dataset, split: str = "train") -> list[tuple[str, str, str]]:
    return sorted((row.prompt[0].content, row.chosen, row.rejected) for row in found.preferences(split))


ONE_A_ROW = [
    {"question": "2 + 2", "answer": "4", "correct": True, "model": "big"},
    {"question": "2 + 2", "answer": "5", "correct": False, "model": "small"},
    {"question": "3 + 3", "answer": "6", "correct": True},
    {"question": "3 + 3", "answer": "six", "correct": "right"},
    {"question": "2 + 2", "answer": "22", "correct": "wrong"},
    {"question": "4 + 4", "answer": "8", "correct": 1},
]


def test_one_answer_a_row(run: Run, tmp_path: Path) -> None:
    found = read(run, tmp_path, ONE_A_ROW)
    assert said(found) == [("2 + 2", "4", "22"), ("2 + 2", "4", "5")]
    row = next(row for row in found.preferences("train") if row.rejected == "5")
    assert (row.facts["chosen"], row.facts["rejected"], row.facts["score_margin"]) == ("big", "small", "1")
    assert row.facts["source"] == "graded.jsonl/1, graded.jsonl/2"
    facts = found.manifest.facts
    assert (facts["prompts"], facts["answers"]) == (3, 6)
    assert facts["dropped"] == {"no two answers of different grades": 1, "with one answer": 1}
    assert {d.row.question for d in found.dropped} == {"3 + 3", "4 + 4"}


def test_answers_in_columns_or_in_a_list(run: Run, tmp_path: Path) -> None:
    solved = [{"question": "2 + 2", "a": {"solution": "4", "is_correct": True}, "b": {"solution": " 5", "is_correct": False}}]
    found = read(run, tmp_path, solved, answers=("a", "b"), text="solution", grade="is_correct")
    assert said(found) == [("2 + 2", "4", "5")] and found.preferences("train")[0].facts["chosen"] == "a"
    listed = [
        {
            "instruction": "Greet.",
            "completions": [{"model": m, "response": r, "score": s} for m, r, s in (("x", "Hi!", 4.5), ("y", "Hm.", 2), ("z", "No.", 2.0))],
        }
    ]
    form = {"prompt": "instruction", "answers": ("completions",), "text": "response", "grade": "score"}
    found = read(run, tmp_path, listed, **form)
    assert said(found) == [("Greet.", "Hi!", "Hm."), ("Greet.", "Hi!", "No.")]
    assert {row.facts["score_margin"] for row in found.preferences("train")} == {"2.5"}
    with pytest.raises(UsageError, match="None of the 1 prompts has two answers of different grades"):
        read(run, tmp_path, listed, **form, least_difference=2.5)


class SampledConfig(Config):
    pass


@recipe
def sampled(config: SampledConfig, *, run: Run) -> Predictions:
    rows = [{"item_id": f"q/{n}", "question": "2 + 2", "answer": a, "numeric": g} for n, (a, g) in enumerate((("4", 1.0), ("5", 0.0)))]
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts={"primary": "numeric"})


def test_a_models_own_answers(run: Run) -> None:
    answers = sampled(SampledConfig(), run=run)
    found = preferences_from_grades(PreferencesFromGradesConfig(held_out_share=0), predictions=answers, run=run)
    assert said(found) == [("2 + 2", "4", "5")]
    assert [i.kind for i in found.manifest.inputs["predictions"]] == ["predictions"]
    with pytest.raises(UsageError, match="Graded answers come from one place"):
        preferences_from_grades(PreferencesFromGradesConfig(), run=run)


def test_pairs_are_capped_and_answers_used_evenly() -> None:
    """4 right, 4 wrong, 16 pairs: of 8 every answer stands in two; of 4 in one."""
    answers = [GradedAnswer(f"answer {n}", float(n < 4), str(n), "") for n in range(8)]
    for most, times in ((4, 1), (8, 2)):
        found = drawn_pairs(answers, PreferencesFromGradesConfig(pairs_per_prompt=most), Random(0))
        assert Counter(a.text for pair in found for a in pair) == {f"answer {n}": times for n in range(8)}
        assert len({(b.text, w.text) for b, w in found}) == most
    assert len(drawn_pairs(answers, PreferencesFromGradesConfig(pairs_per_prompt=99), Random(0))) == 16
    both_ways = [GradedAnswer("same", 1.0, "a", ""), GradedAnswer("same", 0.0, "b", ""), GradedAnswer("other", 0.0, "c", "")]
    assert drawn_pairs(both_ways, PreferencesFromGradesConfig(), Random(0)) == []


@pytest.mark.parametrize(
    ("rows", "settings", "words"),
    [
        ([{"question": "q", "answer": "a", "correct": "maybe"}], {}, "the grade `correct` is 'maybe', neither a number nor right or wrong"),
        ([{"question": "q", "answer": "a"}], {}, "the field `correct` is missing"),
        ([{"question": "q", "a": "text"}], {"answers": ("a",)}, "the field `a` holds no answers"),
        ([{"prompt": "q"}], {}, "the field `question` is missing"),
    ],
)
def test_refused(run: Run, tmp_path: Path, rows: list[dict[str, Any]], settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read(run, tmp_path, rows, **settings)


def test_all_of_gsm8k_solutions(run: Run, shared_data: Path) -> None:
    """1,319 problems, four solutions each: 432 have none right and 156 none wrong; the others give 3, 4 or 3 pairs."""
    config = PreferencesFromGradesConfig(answers=MODELS, text="solution", grade="is_correct")
    found = preferences_from_grades(config, source=shared_data / "gsm8k_model_solutions.jsonl", run=run)
    facts = found.manifest.facts
    assert (facts["prompts"], facts["answers"]) == (1_319, 5_276)
    rows = {split: found.preferences(split) for split in ("train", "test")}
    assert sum(map(len, rows.values())) == 2_429 - 3  # two problems have equal solutions: 3 and 4 pairs, 2 of each different
    assert facts["dropped"] == {"no two answers of different grades": 432 + 156}
    asked = {split: {row.prompt[0].content for row in part} for split, part in rows.items()}
    assert not asked["train"] & asked["test"] and len(asked["train"]) + len(asked["test"]) == 290 + 236 + 205
    known = {(r["question"].strip(), r[m]["solution"].strip()): r[m]["is_correct"] for r in map(json.loads, open(shared_data / "gsm8k_model_solutions.jsonl")) for m in MODELS}  # noqa: SIM115, E501
    for row in rows["train"]:
        assert known[row.prompt[0].content, row.chosen] and not known[row.prompt[0].content, row.rejected]
