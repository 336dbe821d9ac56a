"""SQuAD-form reading: a context, a question, answers that stand in it. The official nested JSON (`data`, `paragraphs`, `qas`), or rows with
`context`, `question`, `answers` (`text`, a list), and `id` and `title` where there are.

A question without an answer (version 2) wants the word "unanswerable". Questions on one paragraph are one cluster, those under one title
one slice.

Source: Rajpurkar et al. 2016, arXiv:1606.05250 (exact match, token F1), and 2018, arXiv:1806.03822 (questions without an answer).
We differ: asked in words through the chat template, so that an answer in a sentence has a low exact match and token F1 decides.
"""

from collections.abc import Iterator
from pathlib import Path

from mygpt.artifacts.rows import Row, read_rows
from mygpt.artifacts.task import Item, TaskSettings

UNANSWERABLE = "unanswerable"


def squad(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    items = [item for row in read_rows(source) for item in (_nested(row) if "paragraphs" in row.values else [_flat(row)])]
    without = any(UNANSWERABLE in item.references for item in items)
    prompt = "{context}\n\nQuestion: {question}\nAnswer with words of the text, as short as possible."
    settings = TaskSettings(
        name="squad",
        version="1",
        form="generate",
        primary="f1",
        prompt=prompt + (f' If the text does not say, answer "{UNANSWERABLE}".' if without else ""),
        max_tokens=48,
        license="CC-BY-SA-4.0",
    )
    return settings, items


def _flat(row: Row) -> Item:
    answers = row.mapping("answers").texts("text")
    return _item(str(row.values.get("id", row.number)), row.text("question"), row.text("context"), answers, row.slice("title"))


def _nested(row: Row) -> Iterator[Item]:
    for p, paragraph in enumerate(row.get("paragraphs"), start=1):
        place = Row(paragraph, row.file, row.number)
        for q, asked in enumerate(place.get("qas"), start=1):
            one = Row(asked, row.file, row.number)
            answers = tuple(Row(a, row.file, row.number).text("text") for a in one.get("answers"))
            name = str(asked.get("id", f"{row.number}.{p}.{q}"))
            yield _item(name, one.text("question"), place.text("context"), answers, row.slice("title"))


def _item(id: str, question: str, context: str, answers: tuple[str, ...], part: dict[str, str]) -> Item:
    facts = {"context": context, "cluster": context, **part}
    return Item(id, question, references=tuple(dict.fromkeys(answers)) or (UNANSWERABLE,), facts=facts)
