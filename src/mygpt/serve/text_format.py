"""OpenAI's text completions: requests read strictly, answers written. A parameter has its effect or is refused by name.

    echo: true, max_tokens: 0 or 1, logprobs: n     what a text is worth to the model, token by token: how choices are scored
    echo: false                                     raw text, continued without a chat template

Source: the `completions` reference of the OpenAI API; what lm-evaluation-harness v0.4.13 (`local-completions`) sends and slices.
We differ: greedy decoding is the default; `echo` goes with at most one new token, and `logprobs` only with `echo`. `add_beginning` is
ours: the beginning-of-text token before a text prompt, not shown, so that the first token has a log-probability too.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, ValidationError

from mygpt.infer.protocols import Sampling
from mygpt.serve.api_error import ApiError
from mygpt.serve.openai_format import Drawn, parameter_error, refuse_unsupported, stops

DEFAULT_MAX_TOKENS = 16  # OpenAI's
MOST_PROMPTS = 64

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "stream": (False,),
    "suffix": ("",),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
}

Prompt = str | tuple[int, ...]


class _TextRequest(Drawn):
    model: str
    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int = Field(default=DEFAULT_MAX_TOKENS, ge=0)
    echo: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=5)
    add_beginning: bool = False


@dataclass(frozen=True)
class TextRequest:
    model: str
    prompts: tuple[Prompt, ...]
    max_tokens: int
    echo: bool
    logprobs: int | None  # likeliest tokens beside each
    add_beginning: bool
    sampling: Sampling


def parse_text(body: Mapping[str, Any]) -> TextRequest:
    given = {key: value for key, value in body.items() if value is not None}
    refuse_unsupported(given, taken=_TextRequest.model_fields, neutral=_NEUTRAL)
    try:
        request = _TextRequest.model_validate({k: v for k, v in given.items() if k in _TextRequest.model_fields})
    except ValidationError as error:
        raise parameter_error(error) from error
    prompts = _prompts(request.prompt)
    if not 1 <= len(prompts) <= MOST_PROMPTS:
        raise ApiError(400, f"`prompt` holds {len(prompts)} texts; give 1 to {MOST_PROMPTS}.", param="prompt", code="invalid_parameter")
    if request.echo and request.max_tokens > 1:
        message = f"`echo` goes with `max_tokens` 0 or 1, not {request.max_tokens}. Ask for the continuation without it."
        raise ApiError(400, message, param="max_tokens", code="unsupported_parameter")
    if request.echo and request.temperature > 0:
        raise ApiError(400, "`echo` goes with `temperature` 0.", param="temperature", code="unsupported_parameter")
    if not request.echo and request.logprobs is not None:
        raise ApiError(400, "`logprobs` goes with `echo: true`.", param="logprobs", code="unsupported_parameter")
    if not request.echo and request.max_tokens < 1:
        raise ApiError(400, "Without `echo`, `max_tokens` is at least 1.", param="max_tokens", code="invalid_parameter")
    sampling = Sampling(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        seed=request.seed,
        stop=stops(request.stop),
    )
    return TextRequest(request.model, prompts, request.max_tokens, request.echo, request.logprobs, request.add_beginning, sampling)


def _prompts(given: str | list[str] | list[int] | list[list[int]]) -> tuple[Prompt, ...]:
    if isinstance(given, str):
        return (given,)
    if given and all(isinstance(one, int) for one in given):
        return (tuple(given),)  # type: ignore[arg-type]
    return tuple(one if isinstance(one, str) else tuple(one) for one in given)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Choice:
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    logprobs: dict[str, Any] | None = None


def token_logprobs(
    pieces: Sequence[str], logprobs: Sequence[float | None], likeliest: Sequence[Sequence[tuple[str, float]] | None]
) -> dict[str, Any]:
    """Token by token: its text, its log-probability, and the likeliest in its place with it among them."""
    offsets, top, at = [], list[dict[str, float] | None](), 0
    for piece, logprob, others in zip(pieces, logprobs, likeliest, strict=True):
        offsets.append(at)
        at += len(piece)
        if others is None or logprob is None:
            top.append(None)
            continue
        named: dict[str, float] = {}
        for text, value in (*others, (piece, logprob)):
            named[text] = max(value, named.get(text, value))  # two tokens can have one spelling
        top.append(named)
    return {"tokens": list(pieces), "token_logprobs": list(logprobs), "top_logprobs": top, "text_offset": offsets}


def text_reply(model: str, choices: Sequence[Choice]) -> dict[str, Any]:
    prompt, completion = sum(c.prompt_tokens for c in choices), sum(c.completion_tokens for c in choices)
    return {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {"text": c.text, "index": i, "logprobs": c.logprobs, "finish_reason": c.finish_reason} for i, c in enumerate(choices)
        ],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    }
