"""What a critic wrote, read leniently: small models put labels, quotes and introductions around what was asked for.

    read_critique(text)      without its label
    needs_no_change(text)    whether a critique says so in its first sentence
    read_revision(text)      without label, introduction and quotation marks
    revision_fault(...)      why nobody should learn a revision, in few words; "" where one may
"""

import re

from mygpt.align.constitution import Constitution, Principle
from mygpt.metrics.token_f1 import token_f1
from mygpt.metrics.words import words

_ECHO = 0.7  # token F1 with an instruction
_LONG_ENOUGH = 25  # characters: a shorter instruction may stand in an answer by chance
_COPY = 0.8  # token F1 with an answer or revision of the examples
_LABEL = re.compile(
    r"^[\s*#>-]*(?:critique|criticism|revision|revised|(?:(?:new|revised|rewritten|better|good) )?(?:answer|reply|response))\s*:\**\s*",
    re.I,
)
_PART = re.compile(r"^(?:request|(?:bad |good )?answer|rule|critique)\s*:", re.I | re.M)  # of a question to the critic
_INTRODUCTION = re.compile(
    r"^(?:sure|certainly|of course|okay|ok)?[,.! ]*(?:here(?:['’]s| is)|this is) (?:an?|the|my|your)? ?(?:\w+ )?"
    r"(?:re-?written|revised|new|better|improved|corrected)[^:\n]{0,80}:\s*",
    re.I,
)
_NO_CHANGE = re.compile(
    r"\bno (?:\w+ )?(?:changes?|revisions?) (?:(?:is|are) )?(?:needed|necessary|required)\b"
    r"|\b(?:needs|requires) no (?:\w+ )?(?:change|revision)s?\b|\bdoes not (?:need|require) (?:any |a )?(?:change|revision|to be changed)"
    r"|\bnothing (?:needs to be|has to be|to) change",
    re.I,
)
_OF_THE_TASK = "(?:re-?write|revise|edit|change|critique|criticise|criticize|review|correct)"
_REFUSES_TASK = re.compile(
    rf"\b(?:can ?not|can't|won't|unable to|not able to) {_OF_THE_TASK} (?:the|this|that|your|an?|it)\b"
    r"|\bplease (?:provide|give me|share|send)(?: me)? (?:the|an?|your|more) (?:\w+ )?(?:answer|text|request|context|critique|rule)\b",
    re.I,
)


def read_critique(text: str) -> str:
    return _unquoted(_LABEL.sub("", text.strip()))


def needs_no_change(critique: str) -> bool:
    first = re.split(r"(?<=[.!?])\s|\n", critique.strip(), maxsplit=1)[0]
    return _NO_CHANGE.search(first.replace("’", "'")) is not None


def read_revision(text: str) -> str:
    without = _LABEL.sub("", text.strip())
    return _unquoted(_LABEL.sub("", _INTRODUCTION.sub("", without)))


def revision_fault(
    revision: str, *, request: str, before: str, critique: str, cut_off: bool, principle: Principle, constitution: Constitution
) -> str:
    """`cut_off`: it ended at the limit of tokens, so it would not teach how to end."""
    if not words(revision):
        return "empty revision"
    if words(revision) == words(before):
        return "revision changes nothing"
    if _REFUSES_TASK.search(revision[:240].replace("’", "'")):
        return "does not do the task"
    instructions = (principle.critique, principle.revision, request)
    if any(_echoes(revision, told) for told in instructions) or _PART.search(revision):
        return "echoes the instructions"
    if token_f1(revision, critique) >= _ECHO:
        return "repeats the critique"
    if any(token_f1(revision, shown) >= _COPY for one in constitution.examples for shown in (one.answer, one.revision or one.critique)):
        return "copies an example"
    if _repeats(revision):
        return "repeats itself"
    return "cut off at the limit" if cut_off else ""


def _echoes(text: str, instruction: str) -> bool:
    """Small critics also repeat an instruction behind their answer."""
    is_inside = len(instruction) >= _LONG_ENOUGH and instruction.lower()[:60] in text.lower()
    return is_inside or token_f1(text, instruction) >= _ECHO


def _repeats(text: str) -> bool:
    """More than half of its runs of three words were there before."""
    said = words(text)
    runs = [tuple(said[i : i + 3]) for i in range(len(said) - 2)]
    return len(runs) >= 12 and len(set(runs)) < 0.5 * len(runs)


def _unquoted(text: str) -> str:
    text = text.strip()
    pairs = (('"', '"'), ("“", "”"))
    inside = text[1:-1]
    if len(text) > 1 and any((text[0], text[-1]) == pair and not set(pair) & set(inside) for pair in pairs):
        return inside.strip()
    return text
