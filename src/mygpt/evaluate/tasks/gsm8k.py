"""GSM8K: grade-school word problems; columns `question`, `answer` (a solution whose last line is `#### NUMBER`).

five_shot   five solved examples before the question, as text; stops where a next question would begin
chat        the question alone, and where to put the number

Source: Cobbe et al. 2021, "Training verifiers to solve math word problems", arXiv:2110.14168; the prompt of five_shot: Gao et al., Language
Model Evaluation Harness v0.4.13, gsm8k.yaml version 3.
We differ: the examples are the first rows of `examples` (the train file), or five of our own in the same form, where the harness draws five
at random; read are always strict, flexible and numeric, and numeric decides.
"""

from pathlib import Path

from mygpt.artifacts.rows import Row, read_rows
from mygpt.artifacts.task import Example, Item, TaskSettings
from mygpt.core.errors import UsageError
from mygpt.evaluate.extraction import GSM8K_STRICT

_OWN = (
    Example(
        question="A bakery sells 12 loaves on Monday and twice as many on Tuesday. How many loaves does it sell on both days?",
        answer="On Tuesday it sells 12 * 2 = <<12*2=24>>24 loaves.\nOn both days it sells 12 + 24 = <<12+24=36>>36 loaves.\n#### 36",
    ),
    Example(
        question="Rosa has 50 euros. She buys 3 books at 8 euros each. How much money is left?",
        answer="The books cost 3 * 8 = <<3*8=24>>24 euros.\nLeft are 50 - 24 = <<50-24=26>>26 euros.\n#### 26",
    ),
    Example(
        question="A train has 6 carriages with 40 seats each. A quarter of the seats is empty. How many people are seated?",
        answer="There are 6 * 40 = <<6*40=240>>240 seats.\nEmpty are 240 / 4 = <<240/4=60>>60.\n"
        "Seated are 240 - 60 = <<240-60=180>>180 people.\n#### 180",
    ),
    Example(
        question="Ben runs 5 km on each of 4 days and 7 km on the fifth day. How far does he run in all?",
        answer="On four days he runs 4 * 5 = <<4*5=20>>20 km.\nIn all he runs 20 + 7 = <<20+7=27>>27 km.\n#### 27",
    ),
    Example(
        question="A tank holds 90 litres. It loses 2 litres an hour and is filled with 5 litres an hour. It is empty now. When is it full?",
        answer="Each hour it gains 5 - 2 = <<5-2=3>>3 litres.\nIt is full after 90 / 3 = <<90/3=30>>30 hours.\n#### 30",
    ),
)


def five_shot(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    shown = _OWN if examples is None else tuple(_example(row) for row in read_rows(examples)[: len(_OWN)])
    settings = TaskSettings(
        name="gsm8k",
        version="1",
        form="generate",
        primary="numeric",
        prompt="Question: {question}\nAnswer:",
        examples=shown,
        stop=("Question:",),
        max_tokens=256,
        answer="number",
        answer_pattern=GSM8K_STRICT,
        chance=0.0,
        license="MIT",
    )
    return settings, [_item(row) for row in read_rows(source)]


def chat(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    settings = TaskSettings(
        name="gsm8k_chat",
        version="1",
        form="generate",
        primary="numeric",
        prompt="{question}\n\nThink step by step. End with a last line of the form: #### NUMBER",
        max_tokens=320,
        answer="number",
        answer_pattern=GSM8K_STRICT,
        chance=0.0,
        license="MIT",
    )
    return settings, [_item(row) for row in read_rows(source)]


def _item(row: Row) -> Item:
    solution, mark, number = row.text("answer").rpartition("#### ")
    if not mark:
        raise UsageError(f"{row.place}: the field `answer` has no `#### NUMBER`.", fix="Give GSM8K's own file.")
    return Item(str(row.number), row.text("question"), references=(number.replace(",", "").strip(),), facts={"solution": solution.strip()})


def _example(row: Row) -> Example:
    return Example(question=row.text("question"), answer=row.text("answer"))
