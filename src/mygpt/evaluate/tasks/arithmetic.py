"""Sums of our own, drawn with a fixed seed: no file is needed, and no model can have read them as a set.

one_digit, two_digit   asked through the chat template, answered in words or digits; the last number decides
choice                 one-digit sums as a choice between four numbers, for base models

Source: Brown et al. 2020, arXiv:2005.14165, section 3.9.1 (the tasks); items are ours.
"""

import itertools
import random
from pathlib import Path

from mygpt.artifacts.task import Example, Item, TaskSettings

_SEED = 20261121
_ITEMS = 100
_SIGNS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
_WORDS = {"+": "plus", "-": "minus", "*": "times"}


def one_digit(source: Path | None, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    """Plus, minus and times of 0 to 9, nothing below zero."""
    return _asked("arithmetic_1_digit", _sums(range(10), "+-*"))


def two_digit(source: Path | None, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    """Plus and minus of 10 to 99."""
    return _asked("arithmetic_2_digit", _sums(range(10, 100), "+-"))


def choice(source: Path | None, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    draw = random.Random(_SEED)
    items = []
    for a, sign, b, result in _sums(range(10), "+-*"):
        others = draw.sample([n for n in range(max(0, result - 5), result + 6) if n != result], 3)
        choices = draw.sample([result, *others], 4)
        right = choices.index(result)
        items.append(Item(f"{a}{sign}{b}", f"{a} {sign} {b} =", tuple(map(str, choices)), right, facts={"slice": _WORDS[sign]}))
    settings = TaskSettings(
        name="arithmetic_choice",
        version="1",
        form="choice",
        primary="acc",
        examples=(Example(question="20 + 10 =", answer="30"), Example(question="30 - 20 =", answer="10")),
        example_separator="\n",
        chance=0.25,
    )
    return settings, items


def _asked(name: str, sums: list[tuple[int, str, int, int]]) -> tuple[TaskSettings, list[Item]]:
    items = [
        Item(f"{a}{s}{b}", f"What is {a} {_WORDS[s]} {b}?", references=(str(r),), facts={"slice": _WORDS[s]}) for a, s, b, r in sums
    ]
    settings = TaskSettings(
        name=name,
        version="1",
        form="generate",
        primary="numeric",
        answer="number",
        prompt="{question} Answer with the number only.",
        answer_pattern=r"^\s*(-?[0-9]+)\.?\s*$",
        max_tokens=32,
        chance=0.0,
    )
    return settings, items


def _sums(numbers: range, signs: str) -> list[tuple[int, str, int, int]]:
    every = [(a, sign, b, _SIGNS[sign](a, b)) for a, sign, b in itertools.product(numbers, signs, numbers)]
    return random.Random(_SEED).sample([one for one in every if one[3] >= 0], _ITEMS)
