"""GLUE and SuperGLUE forms: one or two texts, two labels.

boolq   `passage`, `question`, `answer` (a boolean) or `label`        mrpc   `sentence1`, `sentence2`, `label`
rte     `sentence1`, `sentence2`, `label` (or `premise`, `hypothesis`)   sst2   `sentence`, `label`

Slices are the classes: a gap between them is a model that says one label too often.

Source: Wang et al. 2018, arXiv:1804.07461, and 2019, arXiv:1905.00537; prompts and labels: Gao et al., Language Model Evaluation Harness
v0.4.13, boolq version 2, mrpc, rte and sst2 version 1.
"""

from pathlib import Path

from mygpt.artifacts.rows import Row, read_rows
from mygpt.artifacts.task import Item, TaskSettings


def boolq(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    labels = ("no", "yes")
    items = [
        _item(
            row,
            row.text("question").rstrip("?"),
            labels,
            row.index("answer" if "answer" in row.values else "label", labels),
            {"passage": row.text("passage"), "cluster": row.text("passage")},
        )
        for row in read_rows(source)
    ]
    return _two_labels("boolq", "{passage}\nQuestion: {question}?\nAnswer:", items)


def rte(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    labels = ("True", "False")
    items = [_pair(row, labels, ("entailment", "not_entailment")) for row in read_rows(source)]
    return _two_labels("rte", "{first}\nQuestion: {question} True or False?\nAnswer:", items)


def mrpc(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    items = [_pair(row, ("no", "yes"), ("not_equivalent", "equivalent")) for row in read_rows(source)]
    return _two_labels(
        "mrpc", "Sentence 1: {first}\nSentence 2: {question}\nQuestion: Do both sentences mean the same thing?\nAnswer:", items
    )


def sst2(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    labels = ("negative", "positive")
    items = [_item(row, row.text("sentence"), labels, row.index("label", labels), {}) for row in read_rows(source)]
    return _two_labels("sst2", "{question}\nQuestion: Is this sentence positive or negative?\nAnswer:", items)


def _pair(row: Row, shown: tuple[str, str], named: tuple[str, str]) -> Item:
    """`shown`: the choices; `named`: what files with texts as labels call them."""
    first, second = ("premise", "hypothesis") if "premise" in row.values else ("sentence1", "sentence2")
    return _item(row, row.text(second), shown, row.index("label", named), {"first": row.text(first)})


def _item(row: Row, question: str, labels: tuple[str, str], gold: int, facts: dict[str, str]) -> Item:
    return Item(str(row.values.get("idx", row.number)), question, labels, gold, facts={**facts, **row.slice(otherwise=labels[gold])})


def _two_labels(name: str, prompt: str, items: list[Item]) -> tuple[TaskSettings, list[Item]]:
    return TaskSettings(name=name, version="1", form="choice", primary="acc", prompt=prompt, chance=0.5), items
