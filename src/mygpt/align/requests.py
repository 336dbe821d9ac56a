"""What is asked when a model is aligned by a constitution: a dataset's prompts, or requests that come with mygpt, written for it.

    red_team_prompts()    fifty that ask for something unkind, unwise or unlawful, in everyday words and without harmful detail
    helpful_prompts()     forty-eight harmless ones
    requests(dataset, own, most)     the prompts of a dataset where there is one, else our own, each once
    dialogue(messages)    a request as one text, as a critic or a judge reads it

None of our own is in the sets that measure refusal, disinformation or forgetting: learning from them does not spoil the measurement.
"""

from collections.abc import Sequence
from importlib.resources import files

from mygpt.artifacts.dataset import Conversation, Dataset, Message
from mygpt.core.digest import digest_value
from mygpt.core.errors import UsageError


def red_team_prompts() -> list[Conversation]:
    return _prompts("red_team_prompts.txt")


def helpful_prompts() -> list[Conversation]:
    return _prompts("helpful_prompts.txt")


def requests(given: Dataset | None, own: Sequence[Conversation], most: int | None) -> list[Conversation]:
    """The first `most` (None: all) of the split `train`, without their answers."""
    rows = own if given is None else [Conversation(row.prompt, row.id) for row in given.split("train")]
    distinct = list({row.messages: row for row in rows if row.question.strip()}.values())
    if given is not None and not distinct:
        raise UsageError(f"{given.id} has no requests in its split `train`.", fix="Name a dataset whose rows begin with a user's message.")
    return distinct[:most]


def dialogue(messages: Sequence[Message]) -> str:
    """One request as it is; of a longer conversation every turn with its speaker."""
    if len(messages) == 1:
        return messages[0].content
    return "\n".join(f"{message.role.capitalize()}: {message.content}" for message in messages)


def _prompts(file: str) -> list[Conversation]:
    lines = (files("mygpt.align") / file).read_text(encoding="utf-8").splitlines()
    return [Conversation((Message("user", line),), digest_value([line])[:16]) for line in lines if line]
