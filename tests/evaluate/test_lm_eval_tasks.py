"""lm-eval's YAML: its fields mean what its guide says, and what needs Python is refused. Run by lm-eval itself where it is installed."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mygpt.artifacts.task import Task
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.lm_eval_tasks import LmEvalConfig, lm_eval_task
from mygpt.evaluate.prompts import continuations, conversation, text_prompt
from mygpt.evaluate.tasks import ReadTaskConfig, read_task
from mygpt.infer.protocols import Identity, Score

CHOICE = """\
task: tides
output_type: multiple_choice
test_split: test
doc_to_text: "{{place}}: {{question.strip()}}\\nAnswer:"
doc_to_choice: ["low", "high"]
doc_to_target: label
metric_list: [{metric: acc}]
metadata: {version: 2.0}
"""
ROWS = [{"place": "Quay", "question": " Now? ", "label": 1}, {"place": "Pier", "question": "Later?", "label": 0}]


def folder(path: Path, written: str, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    path.mkdir(exist_ok=True)
    (path / "task.yaml").write_text(written)
    (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(source: Path, run: Run) -> Task:
    made = read_task(ReadTaskConfig(builtin="lm_eval"), source=source, run=run)
    assert isinstance(made, Task)
    return made


def test_multiple_choice(tmp_path: Path, run: Run) -> None:
    task = read(folder(tmp_path / "t", CHOICE), run)
    asked = [(text_prompt(task.settings, i), continuations(task.settings, i), i.gold) for i in task.items]
    assert asked == [("Quay: Now?\nAnswer:", [" low", " high"], 1), ("Pier: Later?\nAnswer:", [" low", " high"], 0)]
    assert (task.settings.name, task.version, task.form, task.primary) == ("tides", "2.0", "choice", "acc")


def test_choices_from_a_column_and_from_jinja(tmp_path: Path, run: Run) -> None:
    rows = [{"q": "Now?", "options": ["ebb", "flood"], "right": "flood"}] * 2
    by_column = (
        CHOICE.replace('["low", "high"]', "options").replace("label", '"{{right}}"').replace("{{place}}: {{question.strip()}}", "{{q}}")
    )
    task = read(folder(tmp_path / "a", by_column, rows), run)
    assert (task.items[0].choices, task.items[0].gold) == (("ebb", "flood"), 1)
    by_jinja = by_column.replace("doc_to_choice: options", 'doc_to_choice: "{{options | reverse | list}}"')
    assert read(folder(tmp_path / "b", by_jinja, rows), run).items[0].choices == ("flood", "ebb")


def test_generate_until(tmp_path: Path, run: Run) -> None:
    written = """\
task: sums
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "{{a}}"
description: "Give {one} number.\\n\\n"
generation_kwargs: {until: ["\\n\\n", "Q:"], max_gen_toks: 12}
filter_list: [{name: strict, filter: [{function: regex, regex_pattern: "#### (\\\\-?[0-9]+)"}, {function: take_first}]}]
metadata: {version: 1}
"""
    task = read(folder(tmp_path / "t", written, [{"q": "2 + 2?", "a": "4"}, {"q": "3 + 3?", "a": 6}]), run)
    assert conversation(task.settings, task.items[0]).question == "Give {one} number.\n\n2 + 2?"
    assert (task.settings.stop, task.settings.max_tokens, task.settings.answer_pattern) == (("\n\n", "Q:"), 12, r"#### (\-?[0-9]+)")
    assert [i.references for i in task.items] == [("4",), ("6",)]
    assert task.primary == "exact_match_strict"


def test_rolling(tmp_path: Path, run: Run) -> None:
    written = 'task: pages\noutput_type: loglikelihood_rolling\ndoc_to_target: "{{page}}"\nmetadata: {version: 1}\n'
    task = read(folder(tmp_path / "t", written, [{"page": "One."}, {"page": "Two."}]), run)
    assert ([i.question for i in task.items], task.primary) == (["One.", "Two."], "bits_per_byte")


@pytest.mark.parametrize(
    ("written", "what"),
    [
        (CHOICE + "process_docs: !function utils.clean\n", "`process_docs` is Python code, which is not run here"),
        ("include: other.yaml\n" + CHOICE, "includes other.yaml"),
        (CHOICE.replace("multiple_choice", "loglikelihood"), "the output type `loglikelihood` is not known"),
        (CHOICE.replace("task: tides\n", ""), "the field `task` is missing"),
        (CHOICE.replace("metadata: {version: 2.0}\n", ""), "has an empty version"),
        (CHOICE.replace("{{place}}", "{{town}}"), "rows.jsonl, row 1: the template .* cannot be filled: 'town' is undefined"),
        (CHOICE.replace("{{place}}", "{{place.__class__.__mro__}}"), "rows.jsonl, row 1: the template .* cannot be filled"),
        (CHOICE.replace('["low", "high"]', "place"), "row 1: the field `doc_to_choice` gives 'Quay', not a list"),
        (CHOICE.replace("doc_to_target: label", "doc_to_target: 5"), "row 1: the field `doc_to_target` is 5, which is none of the 2"),
        ("task: [", "is no YAML"),
    ],
)
def test_refused(written: str, what: str, tmp_path: Path, run: Run) -> None:
    with pytest.raises(UsageError, match=what):
        read(folder(tmp_path / "t", written), run)


def test_without_lm_eval(run: Run) -> None:
    try:
        import lm_eval  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(UsageError, match="lm-eval is not installed"):
            lm_eval_task(LmEvalConfig(task="tides"), run=run)


class Lengths:
    """Longer is likelier: `high` wins."""

    @property
    def identity(self) -> Identity:
        return {"engine": "lengths"}

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        return [Score(math.log(len(c)), 1, len(c)) for c in continuations]


def test_run_by_lm_eval_itself(tmp_path: Path, run: Run) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: an optional adapter")
    source = folder(tmp_path / "t", CHOICE)
    local = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {source / 'rows.jsonl'}}}}}\n"
    (source / "task.yaml").write_text(local + CHOICE)
    made = lm_eval_task(LmEvalConfig(task="tides", num_fewshot=0), folder=source, scorer=Lengths(), run=run)
    assert [(row["item_id"], row["acc"]) for row in made.rows] == [("tides/0", 1.0), ("tides/1", 0.0)]  # type: ignore[attr-defined]
    assert made.manifest.facts["version"] == "2.0" and made.manifest.facts["primary"] == "acc"
