"""A completer that answers from a function: for tests, and for replaying recorded answers."""

from collections.abc import Callable, Iterator, Sequence

from mygpt.artifacts.dataset import Conversation
from mygpt.infer.protocols import Answer, Identity, Sampling


class ScriptedCompleter:
    def __init__(self, reply: Callable[[Conversation], str], *, name: str = "scripted"):
        self._reply = reply
        self._name = name

    @property
    def identity(self) -> Identity:
        return {"engine": "scripted", "name": self._name}

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        return [Answer(self._reply(conversation)) for conversation in conversations]

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[str | Answer]:
        text = self._reply(conversation)
        for start in range(0, len(text), 4):
            yield text[start : start + 4]
        yield Answer(text)
