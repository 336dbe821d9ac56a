"""From an item to what the model reads. Plain substitution of named fields: no code runs, and braces inside a field stay text.

The seam: white space at a prompt's end is moved to what follows it, since most tokenizers join a space with the word after it.

Source: the seam, Gao et al., Language Model Evaluation Harness v0.4.13, `_encode_pair`.
We differ: prompt and continuation are then encoded apart; where a tokenizer would merge across the seam, the harness cuts after merging.
"""

import json
from collections.abc import Mapping

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.task import EARLIER_TURNS, Item, TaskSettings

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def text_prompt(settings: TaskSettings, item: Item) -> str:
    """The whole prompt as text: solved examples, then the question. It does not end in white space."""
    blocks = [] if settings.examples_as_turns else [f"{asked}{settings.target_delimiter}{answer}" for asked, answer in _solved(settings)]
    return settings.example_separator.join([*blocks, _filled(settings.prompt, _fields(item))]).rstrip()


def conversation(settings: TaskSettings, item: Item) -> Conversation:
    """The same as turns of a chat, up to the user's question; where the task is no chat, as raw text."""
    if not settings.chat:
        return Conversation((Message("text", text_prompt(settings, item)),), item.id)
    turns = [Message("system", settings.system)] if settings.system else []
    if settings.examples_as_turns:
        for asked, answer in _solved(settings):
            turns += [Message("user", asked), Message("assistant", answer)]
    turns += [Message(m["role"], m["content"]) for m in json.loads(item.facts.get(EARLIER_TURNS, "[]"))]
    return Conversation((*turns, Message("user", text_prompt(settings, item))), item.id)


def continuations(settings: TaskSettings, item: Item) -> list[str]:
    """What is scored after the prompt: each choice, or the one right text, behind the prompt's last white space and the delimiter."""
    filled = _filled(settings.prompt, _fields(item))
    moved = filled[len(filled.rstrip()) :]
    following = item.references if settings.form == "continuation" else item.choices
    return [f"{moved}{settings.target_delimiter}{choice}" for choice in following]


def lettered(choices: tuple[str, ...]) -> str:
    """`A. red` and so on, a line each."""
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def _solved(settings: TaskSettings) -> list[tuple[str, str]]:
    return [(_filled(settings.prompt, {**e.facts, "question": e.question}).rstrip(), e.answer.strip()) for e in settings.examples]


def _fields(item: Item) -> dict[str, str]:
    return {**item.facts, "question": item.question, "options": lettered(item.choices)}


def _filled(template: str, fields: Mapping[str, str]) -> str:
    return template.format_map(fields)
