"""T0 templates as choices between labels: columns `prompt`, `completion` (a last `<|endoftext|>` is taken off).

The label set is the template's own (ag_news, imdb, paws, mrpc, trec), or the options that stand in the prompt as a list (qasc, cosmos_qa).
What is scored is the label on the line after the prompt, where a completion of these files begins.

Source: Sanh et al. 2021, "Multitask prompted training enables zero-shot task generalization", arXiv:2110.08207 (the templates).
We differ: where every row has the same label (imdb's file here), `chance` is 1.0, since an answer that never changes gets all right, and
nobody can claim an effect there. A file whose rows hold no label (trec's file here) is refused.
"""

import re
from dataclasses import replace
from pathlib import Path

from mygpt.artifacts.rows import Row, read_rows
from mygpt.artifacts.task import Item, TaskSettings, commonest_label
from mygpt.core.errors import UsageError

_LABELS = {
    "ag_news": ("World News", "Sports", "Business", "Science and Technology"),
    "imdb": ("negative", "positive"),
    "paws": ("No", "Yes"),
    "mrpc": ("not equivalent", "equivalent"),
    "trec": ("Description", "Entity", "Abbreviation", "Person", "Quantity", "Location"),
}
_LISTED = re.compile(r"^\s*-\s?(.*\S)\s*$", re.MULTILINE)


def ag_news(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    return _labelled("ag_news", source)


def imdb(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    return _labelled("imdb", source)


def paws(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    return _labelled("paws", source)


def mrpc(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    return _labelled("mrpc", source)


def trec(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    return _labelled("trec", source)


def qasc(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    return _listed("qasc", source)


def cosmos_qa(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    return _listed("cosmos_qa", source)


def samsum(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    """Summaries: generated, and scored by overlap."""
    items = [Item(str(row.number), _prompt(row), references=(_completion(row),)) for row in read_rows(source)]
    settings = TaskSettings(name="t0_samsum", version="2", form="generate", answer="summary", primary="rouge_l", max_tokens=80)
    return settings, items


def _labelled(name: str, source: Path) -> tuple[TaskSettings, list[Item]]:
    """Slices are the classes: a gap between them is a model that says one label too often."""
    items = [_item(row, _LABELS[name]) for row in read_rows(source)]
    return _choices(name, [replace(item, facts={"slice": item.choices[item.gold or 0]}) for item in items])


def _listed(name: str, source: Path) -> tuple[TaskSettings, list[Item]]:
    """The options are the lines that begin with a dash."""
    items = []
    for row in read_rows(source):
        options = tuple(dict.fromkeys(_LISTED.findall(_prompt(row))))
        if len(options) < 2:
            raise UsageError(f"{row.place}: the field `prompt` lists {len(options)} options.", fix="Each is a line `- option`.")
        items.append(_item(row, options))
    return _choices(name, items)


def _item(row: Row, labels: tuple[str, ...]) -> Item:
    label = _completion(row)
    if label not in labels:
        known = ", ".join(f"`{one}`" for one in labels)
        raise UsageError(f"{row.place}: the field `completion` is `{label}`, which is no label.", fix=f"The labels are {known}.")
    return Item(str(row.number), _prompt(row), choices=labels, gold=labels.index(label))


def _choices(name: str, items: list[Item]) -> tuple[TaskSettings, list[Item]]:
    one_label_only = commonest_label(items) == 1.0
    chance = 1.0 if one_label_only else sum(1 / len(item.choices) for item in items) / len(items)
    settings = TaskSettings(
        name=f"t0_{name}", version="1", form="choice", primary="acc", target_delimiter="\n", chance=round(chance, 4), license="Apache-2.0"
    )
    return settings, items


def _prompt(row: Row) -> str:
    return row.text("prompt").replace("\r\n", "\n")


def _completion(row: Row) -> str:
    text = str(row.get("completion")).removesuffix("<|endoftext|>").strip()
    if not text:
        raise UsageError(f"{row.place}: the field `completion` is empty, so there is no right answer.", fix="Use a file with completions.")
    return text
