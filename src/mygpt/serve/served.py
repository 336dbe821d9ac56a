"""What the server is handed: models under the names clients use, and a way to show the source of a citation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mygpt.artifacts.dataset import Conversation
from mygpt.infer.protocols import StreamingCompleter, TokenScores

Tokens = tuple[int, ...]


class TextModel(Protocol):
    """Raw text as a model's tokens (`infer/token_scores`)."""

    @property
    def vocabulary(self) -> int:
        """Token ids go up to this."""

    @property
    def stop_token_ids(self) -> frozenset[int]: ...

    def encode(self, text: str, *, beginning: bool = False) -> tuple[Tokens, Tokens]:
        """(what stands before the text, the text itself)."""

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """What each token adds to the text."""

    def score(self, texts: Sequence[Tokens], *, num_likeliest: int = 1) -> list[TokenScores]: ...


@dataclass(frozen=True)
class Served:
    """One name in /v1/models."""

    name: str
    completer: StreamingCompleter
    context_tokens: int  # of prompt and answer together
    count_tokens: Callable[[Conversation], int]  # of the prompt as the engine will see it
    texts: TextModel | None = None  # raw text, scored and continued (/v1/completions); None: this name takes conversations only
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
