"""HumanEval: Python functions from docstrings, decided by unit tests.

Fields `task_id`, `prompt`, `canonical_solution`, `test`, `entry_point`.

humaneval   the model continues the prompt as raw text, as base models do; the paper's five stops
chat        it is asked for the function in a code block

`mygpt evaluate harness --set samples=20 --set temperature=0.8` gives pass@1, 5 and 10.

Source: Chen et al. 2021, "Evaluating large language models trained on code", arXiv:2107.03374, sections 2.1 and 3.2 (stops).
"""

from pathlib import Path

from mygpt.artifacts.rows import Row, read_rows
from mygpt.artifacts.task import FUNCTION, UNIT_TESTS, Item, TaskSettings

_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")


def humaneval(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    settings = TaskSettings(
        name="humaneval",
        version="1",
        form="generate",
        chat=False,
        answer="program",
        primary="passed",
        stop=_STOPS,
        max_tokens=384,
        chance=0.0,
        license="MIT",
    )
    return settings, [_item(row) for row in read_rows(source)]


def chat(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    settings = TaskSettings(
        name="humaneval_chat",
        version="1",
        form="generate",
        answer="program",
        primary="passed",
        prompt="Complete this Python function. Answer with the whole function in one code block.\n\n```python\n{question}```",
        max_tokens=512,
        chance=0.0,
        license="MIT",
    )
    return settings, [_item(row) for row in read_rows(source)]


def _item(row: Row) -> Item:
    function = row.text("entry_point")
    facts = {UNIT_TESTS: f"{row.text('test')}\ncheck({function})\n", FUNCTION: function}
    return Item(row.text("task_id"), _code(row, "prompt"), references=(_code(row, "canonical_solution"),), facts=facts)


def _code(row: Row, field: str) -> str:
    """As it stands: white space is part of a program."""
    row.text(field)
    return str(row.get(field))
