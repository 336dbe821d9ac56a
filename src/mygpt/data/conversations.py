"""Prompts and answers of a user's file as a Dataset of the schema `sft`: two columns, or a list of messages a row."""

from pathlib import Path
from typing import Annotated, cast

from pydantic import Field

from mygpt.artifacts.dataset import Conversation, Dataset, Message, Role, conversation_facts, write_conversations
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.rows import Row, read_rows
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.data.row_splits import train_and_test

_ROLES = ("system", "user", "assistant", "tool")


class ConversationsConfig(Config):
    """What the file calls its columns. A row with `messages` ([{"role": "user", "content": "..."}, ...]) needs no other."""

    prompt: str = "prompt"
    answer: str = "answer"
    messages: str = "messages"
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of the prompts, where no held-out file is given


@recipe
def conversations(config: ConversationsConfig, *, source: Path, held_out: Path | None = None, run: Run) -> Dataset:
    """Splits `train` and `test`."""
    rows = [_conversation(row, config) for row in read_rows(source)]
    given = None if held_out is None else [_conversation(row, config) for row in read_rows(held_out)]
    order = run.random("held out")
    splits = train_and_test(rows, given, share=config.held_out_share, text_of=lambda r: r.prompt, order=order, run=run)
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits))


def _conversation(row: Row, config: ConversationsConfig) -> Conversation:
    if row.values.get(config.messages) is None:
        messages = (Message("user", row.text(config.prompt)), Message("assistant", row.text(config.answer)))
        return Conversation(messages, str(row.number))
    listed = row.get(config.messages)
    where = f"{row.place}: the field `{config.messages}`"
    if not isinstance(listed, list) or not all(isinstance(m, dict) and isinstance(m.get("content"), str) for m in listed):
        raise UsageError(f"{where} is no list of messages.", fix='Write [{"role": "user", "content": "..."}, ...].')
    if unknown := next((m.get("role") for m in listed if m.get("role") not in _ROLES), None):
        raise UsageError(f"{where} has the role {unknown!r}.", fix=f"Roles are {', '.join(_ROLES)}.")
    if not listed or listed[-1]["role"] != "assistant" or not listed[-1]["content"].strip():
        raise UsageError(f"{where} does not end with an answer of the assistant.", fix="What is learnt is the assistant's text.")
    return Conversation(tuple(Message(cast(Role, m["role"]), m["content"]) for m in listed), str(row.number))
