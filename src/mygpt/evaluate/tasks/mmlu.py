"""MMLU: 57 subjects, four choices, one of the letters A to D is scored. Columns `question`, `choices` (four), `answer` (0 to 3, or a
letter), `subject` where there is one; or the original's CSV with a header `question,A,B,C,D,answer`.

Source: Hendrycks et al. 2021, arXiv:2009.03300 (prompt and letters); as in Gao et al., Language Model Evaluation Harness v0.4.13, mmlu
version 1. With `examples` (the dev file) its first five rows are shown, solved. The subject is the slice.
"""

from pathlib import Path

from mygpt.artifacts.rows import Row, read_rows
from mygpt.artifacts.task import Example, Item, TaskSettings
from mygpt.core.errors import UsageError
from mygpt.evaluate.prompts import LETTERS, lettered

_SHOWN = 5
_LETTERS = tuple(LETTERS[:4])


def mmlu(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    shown = [_item(row) for row in read_rows(examples)[:_SHOWN]] if examples else []
    settings = TaskSettings(
        name="mmlu",
        version="1",
        form="choice",
        primary="acc",
        prompt="{question}\n{answers}\nAnswer:",
        examples=tuple(Example(question=i.question, answer=_LETTERS[i.gold or 0], facts=dict(i.facts)) for i in shown),
        chance=0.25,
        license="MIT",
    )
    return settings, [_item(row) for row in read_rows(source)]


def _item(row: Row) -> Item:
    texts = row.texts("choices") if "choices" in row.values else tuple(row.text(letter) for letter in _LETTERS)
    if len(texts) != len(_LETTERS):
        raise UsageError(f"{row.place}: the field `choices` has {len(texts)} texts.", fix="MMLU has four.")
    subject = str(row.values.get("subject") or "")
    facts = {"answers": lettered(texts), **({"subject": subject} if subject else {}), **row.slice("subject")}
    return Item(str(row.number), row.text("question"), choices=_LETTERS, gold=row.index("answer", _LETTERS), facts=facts)
