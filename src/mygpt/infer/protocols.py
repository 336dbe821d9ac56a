"""Three protocols the size of a hand. Whatever needs a model takes one of these and does not care which engine answers.

    Completer.complete(conversations, sampling) -> answers          text out, with tokens, log-probabilities, finish reason
    Scorer.score(prompts, continuations)        -> scores           log-probability of given text
    Embedder.embed(texts)                       -> (N, D) float32   unit vectors

Each has an `identity`, a JSON value that goes into the manifest of whatever was made with it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from mygpt.artifacts.corpus import Span
from mygpt.artifacts.dataset import Conversation

Identity = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen. Temperature 0 is greedy. `infer/sampling` has the order in which the rest applies."""

    max_tokens: int = 256
    min_tokens: int = 0  # before so many, no end of turn is chosen
    temperature: float = 0.0
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    keep_crossing: bool = True  # of top_p: whether the token that crosses it stays
    min_p: float = 0.0  # of the likeliest token's probability
    repetition_penalty: float = 1.0  # divides the logits of tokens in prompt and answer; 1: off
    frequency_penalty: float = 0.0  # off the logit for each time a token stands in the answer
    presence_penalty: float = 0.0  # off the logit once for a token that stands in the answer
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Citation:
    """`answer[start:end]` is supported by `span`; `quote` is the source's own words."""

    start: int
    end: int
    span: Span
    quote: str
    score: float
    path: str = ""  # of the document, for people
    title: str = ""


@dataclass(frozen=True)
class Answer:
    text: str
    finish_reason: Literal["stop", "length", "abstained", "cancelled"] = "stop"
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()  # of token_ids, natural logarithm, before temperature
    prompt_tokens: int = 0
    citations: tuple[Citation, ...] = ()
    unsupported: tuple[tuple[int, int], ...] = ()  # character ranges of sentences that nothing retrieved supports
    passages: tuple[str, ...] = ()  # what was retrieved and read, best first
    prompt_sha256: str = ""  # of the prompt's token ids as a JSON list, where the engine tells


@dataclass(frozen=True)
class Score:
    """Of one continuation given its prompt."""

    logprob: float  # summed, natural logarithm
    num_tokens: int
    num_bytes: int  # UTF-8 bytes of the continuation: bits per byte = -logprob / ln 2 / num_bytes
    is_greedy: bool | None = None  # whether greedy decoding would have written it; None: the scorer does not tell


@dataclass(frozen=True)
class TokenScores:
    """Of one text of T tokens, token by token."""

    logprobs: tuple[float, ...]  # T - 1: of each token after the first, natural logarithm
    likeliest: tuple[tuple[tuple[int, float], ...], ...]  # T: what follows each token, as (token, log-probability), likeliest first


class Completer(Protocol):
    @property
    def identity(self) -> Identity: ...

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        """One answer per conversation, in order. The last message of each is the user's.

        A conversation of one message with the role `text` is raw text: it is continued as it stands, without a chat template, and the
        answer keeps the white space it begins with. What answers otherwise than by continuing (retrieval) refuses it.
        """


class StreamingCompleter(Completer, Protocol):
    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[str | Answer]:
        """Pieces of text as they come, then the whole Answer as the last item. Closing the iterator stops the work."""


class ConcurrentCompleter(Completer, Protocol):
    def as_finished(self, conversations: Sequence[Conversation], sampling: Sampling) -> Iterator[tuple[int, Answer]]:
        """(place, answer), each when it is there, in any order: what came before a fault can be kept."""


class Scorer(Protocol):
    @property
    def identity(self) -> Identity: ...

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        """Plain text, no chat template; an empty prompt starts at the model's beginning-of-text token."""


class ConcurrentScorer(Scorer, Protocol):
    def as_scored(self, prompts: Sequence[str], continuations: Sequence[str]) -> Iterator[tuple[int, Score]]:
        """(place, score), each when it is there, in any order: what came before a fault can be kept."""


class Embedder(Protocol):
    @property
    def identity(self) -> Identity: ...

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) float32, each row of length 1."""
