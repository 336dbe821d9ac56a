"""The general set: short questions and plain English prose that have nothing to do with the user's documents.

Asked before and after tuning, it shows what was forgotten. The questions (general knowledge, common sense, simple instructions, small
arithmetic) are easy enough that a 135M instruction model answers more than half of them, and hard enough that gains would be seen as well.
The texts are for bits per byte: short ones of many kinds, each about something else, since what is drawn anew for an interval is a whole
text. All were written for this project.
"""

import json
import re
from dataclasses import dataclass
from importlib import resources

REPLY_TOKENS = 40  # how much of a reply is read: an answer that comes later was not an answer


@dataclass(frozen=True, kw_only=True)
class GeneralItem:
    id: str
    category: str  # geography, science, history, animals, language, time, everyday, arithmetic, instruction, culture
    question: str  # the user's whole message
    answers: tuple[str, ...]  # any of them, as whole words, is right
    prompt_style: str  # question, instruction, completion


def load_general() -> tuple[list[GeneralItem], list[str]]:
    """The items, and the texts."""
    folder = resources.files("mygpt.evaluate") / "general"
    rows = [json.loads(line) for line in (folder / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    items = [GeneralItem(**{**row, "answers": tuple(row["answers"])}) for row in rows]
    return items, (folder / "text.txt").read_text(encoding="utf-8").split("\n\n\n")


def is_right(item: GeneralItem, reply: str) -> bool:
    """Whether an accepted answer stands in the reply as whole words, in any case; a part of a longer number does not count."""
    return any(_whole_words(answer).search(reply) for answer in item.answers)


def _whole_words(answer: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?<!\d[.,]){re.escape(answer)}(?!\w)(?![.,]\d)", re.IGNORECASE)
