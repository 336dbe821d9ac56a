"""BIG-bench hard: columns `input`, `target`, in a JSON file with `examples` or as JSON lines.

The answer is what follows "the answer is" (strict); the whole answer is kept beside it, and its exact match and token F1 too.

Source: Suzgun et al. 2022, arXiv:2210.09261 (zero-shot form, exact match on what follows "the answer is").
"""

from pathlib import Path

from mygpt.artifacts.rows import Row, read_rows
from mygpt.artifacts.task import Example, Item, TaskSettings

_SHOWN = 3
ANSWER_IS = r"(?i)the answer is:?\s*(.+?)\s*(?:\.?\s*$|\.?\n)"


def bbh(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    shown = [_item(row) for row in read_rows(examples)[:_SHOWN]] if examples else []
    settings = TaskSettings(
        name="bbh",
        version="1",
        form="generate",
        primary="exact_match_strict",
        prompt='{question}\n\nEnd with "So the answer is" and the answer.',
        examples=tuple(Example(question=i.question, answer=f"So the answer is {i.references[0]}.") for i in shown),
        examples_as_turns=True,
        max_tokens=256,
        answer_pattern=ANSWER_IS,
        license="MIT",
    )
    return settings, [_item(row) for row in read_rows(source)]


def _item(row: Row) -> Item:
    return Item(str(row.number), row.text("input"), references=(row.text("target"),))
