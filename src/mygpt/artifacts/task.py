"""Task: what a model is asked and how it is scored. Items, a prompt, a primary metric, and a version without which figures mean nothing.

choice        the log-probability of each choice after the prompt
generate      an answer, read as text, as a number, as a label, or checked against instructions
continuation  the log-probability of the one right text after the prompt, in nats and in bits per byte, and whether greedy decoding would
              write it
rolling       the log-probability of whole texts

Payload  items.parquet: one row per item; task.json: the settings
"""

import json
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from mygpt.artifacts.artifact import Artifact
from mygpt.core.config import Config
from mygpt.core.errors import UsageError

Form = Literal["choice", "generate", "continuation", "rolling"]
AnswerKind = Literal["text", "summary", "number", "label", "instructions", "program"]
MIN_ITEMS = 2  # of one item there is no spread

_FACT = pa.map_(pa.string(), pa.string())
_ITEM = pa.schema(
    [
        ("id", pa.string()),
        ("question", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("gold", pa.int64()),
        ("references", pa.list_(pa.string())),
        ("facts", _FACT),
    ]
)


@dataclass(frozen=True)
class Item:
    id: str
    question: str  # of a rolling task: the text
    choices: tuple[str, ...] = ()
    gold: int | None = None  # index of the right choice
    references: tuple[str, ...] = ()  # right answers of a `generate` task, any one will do; the one text of a `continuation` task
    facts: Mapping[str, str] = field(default_factory=dict)  # more fields for the prompt; `cluster`: what it shares with other items

    @property
    def cluster(self) -> str:
        """Items of one cluster (a passage, a dialogue) rise and fall together; alone, an item is its own."""
        return self.facts.get("cluster") or self.id


class Example(Config):
    """A solved item shown before the question."""

    question: str
    answer: str
    facts: Mapping[str, str] = Field(default_factory=dict)


class TaskSettings(Config):
    name: str
    version: str  # a new one whenever items, prompt or scoring change
    form: Form
    primary: str  # the metric that decides, one of those the form has
    prompt: str = "{question}"  # {question}, {options} (the choices, lettered), or a fact's name
    chat: bool = True  # `generate` only: through the model's chat template; false: the prompt as raw text, which the model continues
    system: str = ""  # `generate` only: a system message
    examples: tuple[Example, ...] = ()
    example_separator: str = "\n\n"
    examples_as_turns: bool = False  # `generate` only: as earlier turns instead of text
    target_delimiter: str = " "  # between prompt and choice, and between an example's prompt and answer
    stop: tuple[str, ...] = ()
    max_tokens: int = 256
    answer: AnswerKind = "text"
    answer_pattern: str = ""  # strict reading of an answer: a regular expression with one group
    mutual_information: bool = False  # `choice` only: also log p(choice | prompt) - log p(choice | bare)
    bare_prompt: str = ""  # what stands for the prompt there, "Answer:" say
    chance: float | None = None  # the primary metric of a guess; None where guessing has no rate
    variant_of: str = ""  # the task whose items these are, disturbed: same ids, same right answers
    license: str = ""


@dataclass(frozen=True)
class Task(Artifact):
    kind: ClassVar[str] = "task"

    @cached_property
    def settings(self) -> TaskSettings:
        return TaskSettings.model_validate_json((self.payload / "task.json").read_text(encoding="utf-8"))

    @cached_property
    def items(self) -> list[Item]:
        return [_item(row) for row in pq.read_table(self.payload / "items.parquet").to_pylist()]

    @property
    def version(self) -> str:
        return self.settings.version

    @property
    def form(self) -> Form:
        return self.settings.form

    @property
    def primary(self) -> str:
        return self.settings.primary


def write_task(folder: Path, items: Sequence[Item], settings: TaskSettings) -> dict[str, Any]:
    """The payload, checked; returns the facts of its manifest."""
    check_task(items, settings)
    rows = [
        {**vars(i), "choices": list(i.choices), "references": list(i.references), "facts": [(str(k), str(v)) for k, v in i.facts.items()]}
        for i in items
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=_ITEM), folder / "items.parquet", compression="zstd")
    text = json.dumps(settings.model_dump(mode="json"), ensure_ascii=False, indent=1)
    (folder / "task.json").write_text(text + "\n", encoding="utf-8")
    return {
        "task": settings.name,
        "version": settings.version,
        "form": settings.form,
        "primary": settings.primary,
        "chance": settings.chance,
        "commonest_label": commonest_label(items),
        "items": len(items),
        "examples": len(settings.examples),
    }


def check_task(items: Sequence[Item], settings: TaskSettings) -> None:
    """Raises UsageError for what cannot be scored: it names the item and the field."""
    name = settings.name
    if not settings.version.strip():
        raise UsageError(f"The task `{name}` has an empty version.", fix="Give it one, `1` say: scores of two versions are never compared.")
    if len(items) < MIN_ITEMS:
        raise UsageError(f"The task `{name}` has {len(items)} item{'s' * (len(items) != 1)}.", fix=f"Give at least {MIN_ITEMS}.")
    twice = [id for id, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        shown = ", ".join(f"`{id}`" for id in twice[:3])
        raise UsageError(f"The task `{name}` has {len(twice)} ids more than once: {shown}.", fix="Give each item an id of its own.")
    metrics = metrics_of(settings, items)
    if settings.primary not in metrics:
        fix = f"It has: {', '.join(metrics)}."
        raise UsageError(f"The task `{name}` is to be decided by `{settings.primary}`, which a task of this form does not have.", fix=fix)
    if not settings.chat and (settings.system or settings.examples_as_turns):
        what = "a system message" if settings.system else "examples as turns"
        raise UsageError(f"The task `{name}` has {what} and `chat: false`: raw text has no turns.", fix="Write it into the prompt.")
    fields = template_fields(settings.prompt, where=f"the prompt of `{name}`")
    for item in items:
        _check_item(item, settings, fields)


def metrics_of(settings: TaskSettings, items: Sequence[Item]) -> dict[str, bool]:
    """The metric columns that a run of this task has, each with whether higher is better."""
    if settings.form == "choice":
        names = ["acc", "acc_norm", "acc_bytes"]
        names += ["acc_mutual_info"] * settings.mutual_information
        names += ["mc2"] * any(TRUE_CHOICES in item.facts for item in items)
        return dict.fromkeys(names, True)
    if settings.form == "rolling":
        return {"bits_per_byte": False}
    if settings.form == "continuation":
        return {"acc": True, "logprob": True, "bits_per_byte": False}
    return dict.fromkeys(_GENERATE_METRICS[settings.answer], True)


TRUE_CHOICES = "true_choices"  # a fact: indices of all right choices, where there may be several (TruthfulQA's mc2)
EARLIER_TURNS = "earlier_turns"  # a fact: JSON, the messages that stand before the question, each with `role` and `content`
INSTRUCTIONS = "instructions"  # a fact: JSON, what an answer has to obey (IFEval)
UNIT_TESTS, FUNCTION = "unit_tests", "function"  # facts: code that raises where an answer is wrong, and the function that it calls
_GENERATE_METRICS: dict[AnswerKind, tuple[str, ...]] = {
    "text": ("exact_match", "f1", "rouge_l", "exact_match_strict"),
    "summary": ("rouge_1", "rouge_2", "rouge_l", "rouge_lsum", "bleu", "chrf", "f1", "exact_match", "exact_match_strict"),
    "number": ("numeric", "exact_match_flexible", "exact_match_strict"),
    "label": ("acc", "acc_strict"),
    "instructions": ("prompt_strict", "instruction_strict", "prompt_loose", "instruction_loose"),
    "program": ("passed",),
}


def commonest_label(items: Sequence[Item]) -> float | None:
    """What an answer that never changes gets, where all items have the same choices: a floor beside chance. None where they differ."""
    golds = Counter(item.gold for item in items)
    return max(golds.values()) / len(items) if items and len({item.choices for item in items}) == 1 and None not in golds else None


def template_fields(template: str, *, where: str) -> list[str]:
    """The names in braces. Names only: an attribute, an index or a format could reach into Python."""
    fix = "Write `{name}` for a field, and `{{` or `}}` for a brace."
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UsageError(f"Braces of {where} do not match: {error}.", fix=fix) from error
    for _, name, form, conversion in parsed:
        if name is not None and (not name.isidentifier() or form or conversion):
            raise UsageError(f"`{{{name}}}` of {where} is more than a field's name.", fix=fix)
    return [name for _, name, _, _ in parsed if name is not None]


def _check_item(item: Item, settings: TaskSettings, fields: Sequence[str]) -> None:
    def wrong(what: str, fix: str) -> UsageError:
        return UsageError(f"Item `{item.id}` of the task `{settings.name}` {what}.", fix=fix)

    for name in fields:
        if name not in ("question", "options") and name not in item.facts:
            raise wrong(f"has no field `{name}`, which the prompt names", "Give it, or change the prompt.")
    if settings.form == "choice":
        if len(item.choices) < 2:
            raise wrong(f"has {len(item.choices)} choices", "A choice needs at least two.")
        if item.gold is None or not 0 <= item.gold < len(item.choices):
            raise wrong(f"has {item.gold} as index of the right choice, of {len(item.choices)} choices", "Count from 0.")
        if any(not choice.strip() for choice in item.choices):
            raise wrong("has an empty choice", "Give each choice a text.")
    if settings.form == "generate" and settings.answer != "instructions" and not any(r.strip() for r in item.references):
        raise wrong("has no right answer", "Give `references`.")
    if settings.form == "generate" and settings.answer == "label" and not item.choices:
        raise wrong("has no labels to choose from", "Give them as `choices`.")
    if settings.form == "generate" and settings.answer == "instructions" and INSTRUCTIONS not in item.facts:
        raise wrong("has no instructions to check", f"Give them as the fact `{INSTRUCTIONS}`.")
    if settings.form == "generate" and settings.answer == "program" and not (item.facts.get(UNIT_TESTS) and item.facts.get(FUNCTION)):
        raise wrong("has no unit tests, or does not name the function that they call", f"Give the facts `{UNIT_TESTS}` and `{FUNCTION}`.")
    if settings.form == "continuation" and not (len(item.references) == 1 and item.references[0]):
        raise wrong(f"has {len(item.references)} texts to continue with", "Give the right one as `references`.")
    if settings.form == "rolling" and not item.question.strip():
        raise wrong("has no text", "Leave it out.")


def _item(row: Mapping[str, Any]) -> Item:
    return Item(
        id=row["id"],
        question=row["question"],
        choices=tuple(row["choices"] or ()),
        gold=row["gold"],
        references=tuple(row["references"] or ()),
        facts=dict(row["facts"] or ()),
    )
