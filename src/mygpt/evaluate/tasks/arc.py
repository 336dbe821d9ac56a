"""ARC (easy and challenge): school science with three to five choices. Columns `id`, `question`, `choices` (`text` and `label`, lists),
`answerKey`; or AI2's own layout, where `question` holds `stem` and `choices`. The slice is the subject where one is given, else the exam
that the id begins with (`Mercury_7175875`, `MCAS_2000_4_6`).

Source: Clark et al. 2018, arXiv:1803.05457; the prompt: Gao et al., Language Model Evaluation Harness v0.4.13, arc_easy version 1.
"""

from pathlib import Path
from typing import Any

from mygpt.artifacts.rows import Row, read_rows
from mygpt.artifacts.task import Item, TaskSettings
from mygpt.core.errors import UsageError


def arc(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    items = [_item(row) for row in read_rows(source)]
    chance = sum(1 / len(item.choices) for item in items) / len(items)
    settings = TaskSettings(
        name="arc",
        version="1",
        form="choice",
        primary="acc_norm",
        prompt="Question: {question}\nAnswer:",
        chance=round(chance, 4),
        license="CC-BY-SA-4.0",
    )
    return settings, items


def _item(row: Row) -> Item:
    asked = row.get("question")
    if isinstance(asked, dict):
        inner = row.mapping("question")
        question = inner.text("stem")
        texts, labels = _columns(inner.get("choices"))
    else:
        question = row.text("question")
        inner = row.mapping("choices") if isinstance(row.get("choices"), dict) else row
        texts, labels = (inner.texts("text"), inner.texts("label")) if inner is not row else _columns(row.get("choices"))
    key = row.text("answerKey")
    if key not in labels or len(labels) != len(texts):
        raise UsageError(f"{row.place}: the field `answerKey` is `{key}`, and the labels are {list(labels)}.", fix="It names one of them.")
    name = str(row.values.get("id", row.number))
    facts = row.slice("subject", otherwise=name.partition("_")[0] if "_" in name else "")
    return Item(name, question, choices=texts, gold=labels.index(key), facts=facts)


def _columns(choices: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """From `[{"text": ..., "label": ...}]`."""
    known = [c for c in choices if isinstance(c, dict) and "text" in c and "label" in c] if isinstance(choices, list) else []
    return tuple(str(c["text"]).strip() for c in known), tuple(str(c["label"]) for c in known)
