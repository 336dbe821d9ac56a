"""TruthfulQA, multiple choice: columns `question`, `mc1_targets` and `mc2_targets` (each `choices` and `labels`, 1 for true),
and `category` where there is one: the slice.

mc1   one choice is true: accuracy
mc2   several are: the share of probability that the true ones get, sum of p(true) / sum of p(all)

Source: Lin et al. 2022, arXiv:2109.07958, section 3 (both scores).
We differ: the paper puts six solved questions before each; here come those of `examples` (six rows, first true choice), or none.
"""

from pathlib import Path

from mygpt.artifacts.rows import Row, read_rows
from mygpt.artifacts.task import TRUE_CHOICES, Example, Item, TaskSettings
from mygpt.core.errors import UsageError

_SHOWN = 6


def mc1(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    return _read("mc1", "acc", source, examples)


def mc2(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    return _read("mc2", "mc2", source, examples)


def _read(which: str, primary: str, source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    items = [_item(row, which) for row in read_rows(source)]
    shown = [_item(row, which) for row in read_rows(examples)[:_SHOWN]] if examples else []
    chance = sum(len(i.facts[TRUE_CHOICES].split()) / len(i.choices) for i in items) / len(items)
    settings = TaskSettings(
        name=f"truthfulqa_{which}",
        version="1",
        form="choice",
        primary=primary,
        prompt="Q: {question}\nA:",
        examples=tuple(Example(question=i.question, answer=i.choices[i.gold or 0]) for i in shown),
        chance=round(chance, 4),
        license="Apache-2.0",
    )
    return settings, items


def _item(row: Row, which: str) -> Item:
    targets = row.mapping(f"{which}_targets")
    choices, labels = targets.texts("choices"), targets.texts("labels")
    true = [i for i, label in enumerate(labels) if label == "1"]
    if len(choices) != len(labels) or not true:
        raise UsageError(
            f"{row.place}: `{which}_targets` has {len(choices)} choices, {len(labels)} labels and {len(true)} true ones.",
            fix="Each choice has a label, 0 or 1, and one is true.",
        )
    facts = {TRUE_CHOICES: " ".join(map(str, true)), **row.slice("category")}
    return Item(str(row.number), row.text("question"), choices=choices, gold=true[0], facts=facts)
