"""Effective context length: how long may a text be before the model loses a fact that stands in it?

A sentence ("The code of the green locker is 4821.") is planted in neutral filler at several depths and lengths, and asked for at the end.

    recall(length, depth)  share of the planted facts whose number stands in the reply, with Wilson's interval
    effective length       the longest length such that up to it recall stays at `keep` times the shortest length's, or more

Lengths are tokens where the completer counts them (the engine here does), else words. A length holds the prompt and room for the answer.
A length beyond the window is "does not fit", and so are those after it: that is not a recall of 0.

Source: facts planted by depth and length: Kamradt 2023, "Needle in a haystack"; depth matters: Liu et al. 2023, arXiv:2307.03172; effective
against claimed length by a threshold: Hsieh et al. 2024, arXiv:2404.06654 (RULER).
We differ: the threshold is a share of the model's own recall at the shortest length, not a fixed score; filler and facts are our own.
"""

import random
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from mygpt.artifacts.dataset import Conversation
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.core.config import Config
from mygpt.core.errors import MygptError, UsageError
from mygpt.core.run import Run
from mygpt.evaluate.behaviour_set import VERSION, Row, asked, behaviour_facts, behaviour_row, load_items, share
from mygpt.infer.protocols import Answer, Completer, Sampling

Size = Callable[[Conversation], int]

_COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple", "brown", "grey")
_BEYOND_WINDOW = re.compile(
    r"\bwindow\b|\bcontext\b|\bmaximum\b.*\b(?:length|tokens)\b|\btoo (?:long|many tokens)\b", re.IGNORECASE | re.DOTALL
)


class EffectiveContextConfig(Config):
    lengths: tuple[int, ...] = (256, 512, 1_024, 2_048, 4_096)
    depths: tuple[int, ...] = (0, 25, 50, 75, 100)  # percent of the filler that comes before the fact
    facts_per_cell: int = 5
    keep: float = 0.85  # share of the shortest length's recall that has to stay
    max_tokens: int = 24
    version: Literal["1"] = VERSION  # type: ignore[assignment]  # of filler, facts and rules: new ones are measured anew


@recipe
def effective_context(config: EffectiveContextConfig, *, completer: Completer, run: Run) -> Predictions:
    """Length by length, shortest first, until one does not fit."""
    _check(config)
    size, unit = _size_of(completer)
    rows: list[Row] = []
    progress = run.progress(len(config.lengths) * len(config.depths) * config.facts_per_cell, "answers")
    fits = True
    for length in sorted(config.lengths):
        cells = [(depth, number) for depth in config.depths for number in range(config.facts_per_cell)]
        planted = [_planted(length - config.max_tokens, depth, number, size, run) for depth, number in cells]
        answers = _answers(completer, [conversation for conversation, _ in planted], config.max_tokens) if fits else None
        fits = answers is not None
        given: Sequence[Answer | None] = answers if answers is not None else [None] * len(cells)
        for (depth, number), (conversation, code), answer in zip(cells, planted, given, strict=True):
            place = {"length": length, "depth": depth, "fits": fits, "size": size(conversation)}
            found = answer is not None and recalled(answer.text, code)
            parsed = answer is not None and bool(answer.text.strip())
            name = f"effective_context-{length}-{depth}-{number}"
            row = behaviour_row("effective_context", name, conversation, answer or Answer(""), parsed=parsed, reference=code)
            question = conversation.question.rpartition("\n\n")[2]  # without the text: it is made again from length, depth and seed
            rows.append({**row, "question": question, **place, "recalled": float(found)})
            progress.advance()
    facts = behaviour_facts("effective_context", "recalled", {"recalled": True}, completer.identity)
    nominal = getattr(completer, "context_tokens", None)
    facts |= {"unit": unit, "nominal_tokens": nominal, **figures(rows, config.keep)}
    if facts["reason"]:
        run.warn(f"No effective context length: {facts['reason']}.")
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)


def figures(rows: Sequence[Row], keep: float) -> dict[str, Any]:
    """Recall by cell and by length, and the effective length; None with a reason where there is none."""

    def recall(own: Sequence[Row]) -> dict[str, Any] | None:
        return share([row["recalled"] == 1.0 for row in own]) if all(row["fits"] for row in own) else None

    lengths, depths = sorted({row["length"] for row in rows}), sorted({row["depth"] for row in rows})
    by_length = {length: recall([row for row in rows if row["length"] == length]) for length in lengths}
    cells = [
        {"length": length, "depth": depth, "recall": recall([r for r in rows if (r["length"], r["depth"]) == (length, depth)])}
        for length in lengths
        for depth in depths
    ]
    effective, reason = _effective(by_length, keep)
    return {
        "effective_length": effective,
        "reason": reason,
        "keep": keep,
        "by_length": [{"length": length, "recall": found} for length, found in by_length.items()],
        "cells": cells,
        "does_not_fit": [length for length, found in by_length.items() if found is None],
    }


def recalled(reply: str, code: str) -> bool:
    """Whether the code stands in the reply as a whole number, thousands separated or not."""
    return re.search(rf"(?<!\d){code}(?!\d)", re.sub(r"(?<=\d)[, ](?=\d{3}\b)", "", reply)) is not None


def _effective(by_length: dict[int, dict[str, Any] | None], keep: float) -> tuple[int | None, str]:
    shortest, first = next(iter(by_length.items()))
    if first is None:
        return None, f"the shortest length, {shortest}, does not fit"
    if first["estimate"] == 0:
        return None, f"nothing was recalled at the shortest length, {shortest}"
    effective = shortest
    for length, found in by_length.items():
        if found is None or found["estimate"] < keep * first["estimate"]:
            break
        effective = length
    return effective, ""


def _planted(room: int, depth: int, number: int, size: Size, run: Run) -> tuple[Conversation, str]:
    """As much filler as there is room for, with the fact at its depth; and the code to be recalled. One fact at every length."""
    chosen = run.random(f"effective_context/fact/{depth}/{number}")
    colour, code = chosen.choice(_COLOURS), str(chosen.randint(1_000, 9_999))
    fact = f"The code of the {colour} locker is {code}."
    filler = _Filler(run.random(f"effective_context/filler/{depth}/{number}"))

    def with_sentences(count: int) -> Conversation:
        sentences = filler.first(count)
        place = round(depth / 100 * count)
        text = " ".join([*sentences[:place], fact, *sentences[place:]])
        return asked(
            f"Read this text. A question follows.\n\n{text}\n\nWhat is the code of the {colour} locker? Answer with the number only."
        )

    count, step = 0, 1
    while size(with_sentences(step)) <= room:
        count, step = step, step * 2
    while step - count > 1:
        middle = (count + step) // 2
        count, step = (middle, step) if size(with_sentences(middle)) <= room else (count, middle)
    if count == 0:
        raise UsageError(f"A length of {room} holds no text beside question and answer.", fix="Choose lengths of 128 or more.")
    return with_sentences(count), code


class _Filler:
    """Sentences of the filler, paragraph after paragraph in a shuffled order; when all were used, in another."""

    def __init__(self, order: random.Random):
        self._order = order
        self._paragraphs = [row["text"] for row in load_items("filler")]
        self._sentences: list[str] = []

    def first(self, count: int) -> list[str]:
        while len(self._sentences) < count:
            shuffled = self._order.sample(self._paragraphs, len(self._paragraphs))
            self._sentences += [sentence for paragraph in shuffled for sentence in re.split(r"(?<=[.!?])\s+", paragraph)]
        return self._sentences[:count]


def _size_of(completer: Completer) -> tuple[Size, str]:
    counts = getattr(completer, "count_tokens", None)
    if counts is not None:
        return counts, "tokens"
    return lambda conversation: sum(len(m.content.split()) for m in conversation.messages), "words"


def _answers(completer: Completer, conversations: Sequence[Conversation], max_tokens: int) -> list[Answer] | None:
    """None when the texts are longer than the completer's window; every other error is raised."""
    try:
        return completer.complete(conversations, Sampling(max_tokens=max_tokens))
    except MygptError as error:
        if _BEYOND_WINDOW.search(error.what):
            return None
        raise


def _check(config: EffectiveContextConfig) -> None:
    if not config.lengths or not config.depths or config.facts_per_cell < 1:
        raise UsageError("There is nothing to measure: lengths, depths or facts are missing.", fix="Give one or more of each.")
    if wrong := [depth for depth in config.depths if not 0 <= depth <= 100]:
        raise UsageError(f"A depth of {wrong[0]} % is not within the text.", fix="Give depths from 0 to 100.")
    if not 0 < config.keep <= 1:
        raise UsageError(f"`keep` is {config.keep}, and it is a share.", fix="Choose one above 0 and at most 1, such as 0.85.")
