"""OpenAI's chat format: requests read strictly, answers written. A parameter has its effect or is refused by name.

Source: the `chat/completions` reference of the OpenAI API, and what its Python client sends and parses.
We differ: citations come in an extra field `mygpt`; greedy decoding is the default; `top_k` is accepted.
Offsets count characters (Unicode code points) of the answer, end exclusive.
"""

import difflib
import json
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.infer.protocols import Answer, Citation, Sampling
from mygpt.serve.api_error import ApiError

DEFAULT_MAX_TOKENS = 512

# Parameters that ask for nothing when they have one of these values, and for something we do not do otherwise.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none",),
    "functions": ([],),
    "function_call": ("none",),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "web_search_options": (),
}
# Parameters about the caller's own book-keeping: whatever they say, the answer is right.
_HARMLESS = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"})
# What a client sends back inside an earlier assistant message of ours.
_ECHOED = frozenset({"refusal", "annotations", "audio", "function_call", "tool_calls", "reasoning_content"})


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Drawn(Strict):
    """How tokens are drawn: the same fields of every request that asks for some."""

    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=-(2**63), lt=2**63)
    stop: str | list[str] = Field(default_factory=list)


class _TextPart(Strict):
    type: Literal["text"]
    text: str


class _Message(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_TextPart]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class _StreamOptions(Strict):
    include_usage: bool = False


class _ChatRequest(Drawn):
    model: str
    messages: list[_Message] = Field(min_length=1)
    stream: bool = False
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)


@dataclass(frozen=True)
class ChatRequest:
    model: str
    conversation: Conversation
    stream: bool
    include_usage: bool
    max_tokens: int | None  # None: as many as the default and the window allow
    sampling: Sampling  # its max_tokens is settled once the prompt is counted

    def sampling_within(self, context_tokens: int, prompt_tokens: int) -> Sampling:
        """Nothing is ever cut: a conversation that does not fit is refused with the figures."""
        room = context_tokens - prompt_tokens
        if room < 1 or (self.max_tokens is not None and self.max_tokens > room):
            asked = f" and {self.max_tokens} tokens were asked for the answer" if self.max_tokens is not None else ""
            raise ApiError(
                400,
                f"This model's maximum context length is {context_tokens} tokens; the messages take {prompt_tokens}{asked}. "
                "Shorten the messages, ask for fewer tokens, or start a new conversation.",
                param="messages",
                code="context_length_exceeded",
            )
        s = self.sampling
        max_tokens = self.max_tokens if self.max_tokens is not None else min(DEFAULT_MAX_TOKENS, room)
        return Sampling(max_tokens=max_tokens, temperature=s.temperature, top_p=s.top_p, top_k=s.top_k, seed=s.seed, stop=s.stop)


def parse_json(body: bytes) -> dict[str, Any]:
    """An object with well-formed text in it, or a 400 that says what is wrong."""
    try:
        value = json.loads(body, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate is not text
    except RecursionError:
        raise ApiError(400, "The JSON is nested too deeply.", code="invalid_json") from None
    except ValueError as error:
        raise ApiError(400, f"The body is not valid JSON: {_one_line(error)}.", code="invalid_json") from error
    if not isinstance(value, dict):
        raise ApiError(400, f"The body must be a JSON object, not {_json_type(value)}.", code="invalid_json")
    return value


def parse_chat(body: Mapping[str, Any]) -> ChatRequest:
    given = {key: value for key, value in body.items() if value is not None}
    refuse_unsupported(given, taken=_ChatRequest.model_fields, neutral=_NEUTRAL)
    known = {key: value for key, value in given.items() if key in _ChatRequest.model_fields}
    if isinstance(known.get("messages"), list):
        known["messages"] = [_without_echoes(message) for message in known["messages"]]
    try:
        request = _ChatRequest.model_validate(known)
    except ValidationError as error:
        raise parameter_error(error) from error
    if request.stream_options is not None and not request.stream:
        raise ApiError(400, "`stream_options` is only for `stream: true`.", param="stream_options")
    stop = stops(request.stop)
    messages = tuple(Message("system" if m.role == "developer" else m.role, m.text) for m in request.messages)
    if messages[-1].role != "user" or not messages[-1].content.strip():
        raise ApiError(400, "The last message must be the user's, and not empty.", param="messages")
    return ChatRequest(
        model=request.model,
        conversation=Conversation(messages),
        stream=request.stream,
        include_usage=request.stream_options is not None and request.stream_options.include_usage,
        max_tokens=_max_tokens(request),
        sampling=Sampling(temperature=request.temperature, top_p=request.top_p, top_k=request.top_k, seed=request.seed, stop=stop),
    )


def _max_tokens(request: _ChatRequest) -> int | None:
    old, new = request.max_tokens, request.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise ApiError(400, f"`max_tokens` is {old} and `max_completion_tokens` is {new}. Give one of them.", param="max_tokens")
    return old if old is not None else new


def stops(given: str | list[str]) -> tuple[str, ...]:
    stop = (given,) if isinstance(given, str) else tuple(given)
    if len(stop) > 4 or "" in stop:
        raise ApiError(400, "`stop` takes up to 4 strings, none of them empty.", param="stop")
    return stop


def refuse_unsupported(given: Mapping[str, Any], *, taken: Collection[str], neutral: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises ApiError for a parameter that is not `taken`, but for those that ask for nothing."""
    for name, value in given.items():
        if name in taken or name in _HARMLESS:
            continue
        if name in neutral:
            if not any(value == nothing and isinstance(value, bool) == isinstance(nothing, bool) for nothing in neutral[name]):
                message = f"`{name}` is not supported by this server with this value. Leave it out."
                raise ApiError(400, message, param=name, code="unsupported_parameter")
            continue
        near = difflib.get_close_matches(name, taken, n=1)
        hint = f"Did you mean `{near[0]}`?" if near else "Leave it out."
        raise ApiError(400, f"Unknown parameter `{name[:80]}`. {hint}", param=name[:80], code="unknown_parameter")


def _without_echoes(message: Any) -> Any:
    """Our own answers come back as history: their empty fields and our extension say nothing to the model."""
    if not isinstance(message, dict) or message.get("role") != "assistant":
        return message
    return {k: v for k, v in message.items() if k != "mygpt" and not (k in _ECHOED and not v)}


def parameter_error(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False)[0]
    where = first["loc"]
    if where[0] == "messages" and len(where) >= 2:
        param = f"messages[{where[1]}]" + (f".{where[2]}" if len(where) >= 3 else "")
    else:
        param = str(where[0])
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"`{param}` is not supported by this server. Leave it out.", param=param, code="unsupported_parameter")
    return ApiError(400, f"`{param}`: {first['msg']}.", param=param, code="invalid_parameter")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _json_type(value: Any) -> str:
    return {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}.get(type(value), "null")


# -- answers ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """One response's fixed part: id, time and model are the same in every chunk of a stream."""

    model: str
    prompt_tokens: int
    include_usage: bool = False  # in a stream: one more chunk with the counts, and `usage: null` in all others
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, answer: Answer) -> dict[str, Any]:
        message = {"role": "assistant", "content": answer.text, "refusal": None, "mygpt": extension(answer)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(answer)}
        return {**self._head("chat.completion"), "choices": [choice], "usage": self._usage(answer)}

    def chunk(self, delta: dict[str, Any], *, finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice], **({"usage": None} if self.include_usage else {})}

    def last_chunk(self, answer: Answer, streamed: str) -> dict[str, Any]:
        """Carries the one finish reason, and the citations. Where the whole answer is not what was streamed, it comes along."""
        extra = extension(answer) if answer.text == streamed else {**extension(answer), "text": answer.text}
        return {**self.chunk({}, finish=finish_reason(answer)), "mygpt": extra}

    def usage_chunk(self, answer: Answer) -> dict[str, Any]:
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage(answer)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _usage(self, answer: Answer) -> dict[str, int]:
        prompt = answer.prompt_tokens or self.prompt_tokens
        return {"prompt_tokens": prompt, "completion_tokens": len(answer.token_ids), "total_tokens": prompt + len(answer.token_ids)}


def finish_reason(answer: Answer) -> str:
    return "length" if answer.finish_reason == "length" else "stop"


def extension(answer: Answer) -> dict[str, Any]:
    return {
        "citations": [_citation(c) for c in answer.citations],
        "unsupported": [[int(start), int(end)] for start, end in answer.unsupported],
        "abstained": answer.finish_reason == "abstained",
        **({"prompt_sha256": answer.prompt_sha256} if answer.prompt_sha256 else {}),
    }


def _citation(c: Citation) -> dict[str, Any]:
    return {
        "start": int(c.start),
        "end": int(c.end),
        "document_id": c.span.document_id,
        "source_start": int(c.span.start),
        "source_end": int(c.span.end),
        "path": c.path,
        "place": c.span.place,
        "title": c.title,
        "quote": c.quote,
        "score": float(c.score),
    }
