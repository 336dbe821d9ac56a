"""What the server is handed: models under the names clients use, and a way to show the source of a citation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mygpt.artifacts.dataset import Conversation
from mygpt.infer.protocols import StreamingCompleter


@dataclass(frozen=True)
class Served:
    """One name in /v1/models."""

    name: str
    completer: StreamingCompleter
    context_tokens: int  # of prompt and answer together
    count_tokens: Callable[[Conversation], int]  # of the prompt as the engine will see it
    engine: Any = None  # names that share an engine take turns on it; None: the completer is its own
    template_digest: str = ""  # of the chat template that is applied; "" where it is not known

    @property
    def turn_key(self) -> int:
        return id(self.completer if self.engine is None else self.engine)


@dataclass(frozen=True)
class SourceView:
    """The passage a citation opens: `cited` is the supporting stretch, between what stands around it."""

    title: str
    path: str
    place: str
    before: str
    cited: str
    after: str


SourcePassage = Callable[[str, int, int], SourceView | None]  # (document id, start, end) in characters of the stored text
