"""A tiny base, pairs and prompts to align it with, as artefacts."""

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

COMPARED = (
    ("Who founded the museum?", "Clara Voss did.", "No idea."),
    ("What does a ticket cost?", "It costs 24 euros.", "Money."),
    ("Where are the logs?", "On the server.", "Somewhere on a machine, as they always are."),
    ("When does it open?", "At 8.", "Later."),
)


class PreferencesConfig(Config):
    pairs: tuple[tuple[str, str, str], ...] = COMPARED


@recipe
def preferences(config: PreferencesConfig, *, run: Run) -> Dataset:
    splits = {
        "train": [Preference((Message("user", q), ), good, bad, id=f"pair-{n}") for n, (q, good, bad) in enumerate(config.pairs)],
    }
    return publish(Dataset, run, lambda folder: write_preferences(folder, splits), facts=preference_facts(splits), name="preferences")


class PromptsConfig(Config):
    questions: tuple[str, ...] = tuple(question for question, *_ in COMPARED)


@recipe
def prompts(config: PromptsConfig, *, run: Run) -> Dataset:
    splits = {"train": [Conversation((Message("user", q),), f"prompt-{n}") for n, q in enumerate(config.questions)]}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits), name="prompts")
