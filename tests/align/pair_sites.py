"""Pairs to learn from and pairs held out, and answers that somebody called good or bad, as artefacts."""

from dataclasses import replace
from typing import Any

from mygpt.artifacts.dataset import (
    Conversation,
    Dataset,
    Message,
    Preference,
    conversation_facts,
    preference_facts,
    write_conversations,
    write_preferences,
)
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.run import Run
from tests.align.sites import COMPARED

HELD_OUT = (("Who sells tickets?", "The front desk does.", "No idea, none at all."), ("Is it open?", "Yes, until 8.", "Later."))
FAST: dict[str, Any] = {"learning_rate": 3e-3, "epochs": 2, "precision": "float32", "checkpoint_seconds": 0.0}


class ComparedConfig(Config):
    pairs: tuple[tuple[str, str, str], ...] = COMPARED
    held_out: tuple[tuple[str, str, str], ...] = HELD_OUT
    probability: str = ""  # of every training pair
    ties: tuple[int, ...] = ()  # of the training pairs, by the fact


@recipe
def compared(config: ComparedConfig, *, run: Run) -> Dataset:
    def rows(pairs: tuple[tuple[str, str, str], ...]) -> list[Preference]:
        return [Preference((Message("user", q),), good, bad, id=f"pair-{n}") for n, (q, good, bad) in enumerate(pairs)]

    facts = {"probability": config.probability} if config.probability else {}
    train = [replace(row, facts=facts | ({"tie": "true"} if n in config.ties else {})) for n, row in enumerate(rows(config.pairs))]
    splits = {"train": train, "test": rows(config.held_out)}
    return publish(Dataset, run, lambda folder: write_preferences(folder, splits), facts=preference_facts(splits), name="compared")


class JudgedConfig(Config):
    good: int = 4
    bad: int = 4
    label: str = "good"  # what good answers are called


@recipe
def judged_answers(config: JudgedConfig, *, run: Run) -> Dataset:
    def rows(pairs: tuple[tuple[str, str, str], ...], good: int, bad: int) -> list[Conversation]:
        answers = [*((q, yes, config.label) for q, yes, _ in pairs[:good]), *((q, no, "bad") for q, _, no in pairs[:bad])]
        turns = [((Message("user", q), Message("assistant", a)), label) for q, a, label in answers]
        return [Conversation(messages, f"answer-{n}", facts={"label": label}) for n, (messages, label) in enumerate(turns)]

    splits = {"train": rows(COMPARED, config.good, config.bad), "test": rows(HELD_OUT, 2, 2)}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits), name="judged")
