"""Log-probabilities from an OpenAI-compatible address whose completions can `echo`: vLLM, another mygpt. A Scorer.

Prompt and continuation are sent as one text; the reply says token by token what each is worth, and where in the text it stands. The
continuation's tokens are those that begin in it. `is_greedy`: every one is the likeliest in its place.

Source     what `echo`, `logprobs` and `max_tokens: 1` give: OpenAI's completions reference, as lm-evaluation-harness uses it
           (v0.4.13, `local-completions`)
We differ  no tokenizer is needed here, so the server encodes the text as a whole: where it joins the end of a prompt and the beginning
           of its continuation in one token, the score is another than that of a local Scorer, and that is an error. An empty prompt asks
           for `add_beginning` (mygpt's own parameter); a server that knows neither it nor a beginning-of-text token is refused
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from mygpt.core.errors import MygptError, UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import Identity, Score
from mygpt.infer.remote import Endpoint, each_as_finished

_TEXTS_AT_ONCE = 8  # in one request
Pair = tuple[str, str]


class RemoteScorer:
    """`address` as in `infer/remote.Endpoint`."""

    def __init__(self, address: str, *, run: Run | None = None, parallel: int = 4, timeout_seconds: float = 300.0):
        self._endpoint = Endpoint(address, what="scorer", timeout_seconds=timeout_seconds)
        self._run, self._parallel = run, parallel

    @property
    def identity(self) -> Identity:
        return self._endpoint.identity

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        scores = dict(self.as_scored(prompts, continuations))
        return [scores[place] for place in range(len(prompts))]

    def as_scored(self, prompts: Sequence[str], continuations: Sequence[str]) -> Iterator[tuple[int, Score]]:
        pairs = list(zip(prompts, continuations, strict=True))
        progress = self._run.progress(len(pairs), "texts") if self._run else None
        parts = list(_parts(pairs))
        firsts = [0, *itertools.accumulate(map(len, parts))]
        for number, scores in each_as_finished(self._ask, parts, self._parallel):
            yield from enumerate(scores, start=firsts[number])
            if progress:
                progress.advance(len(scores))

    def _ask(self, pairs: Sequence[Pair]) -> list[Score]:
        """Either all have a prompt, or none has."""
        body = {
            "model": self._endpoint.name,
            "prompt": [prompt + continuation for prompt, continuation in pairs],
            "echo": True,
            "logprobs": 1,
            "max_tokens": 1,  # 0 means "no limit" to some servers; the new token stands behind the text, and is left out
            "temperature": 0,
            **({} if pairs[0][0] else {"add_beginning": True}),
        }
        reply = self._endpoint.request("POST", "/completions", body)
        try:
            choices = sorted(reply["choices"], key=lambda choice: int(choice["index"]))
            told = [choice["logprobs"] for choice in choices]
            if len(told) != len(pairs):
                raise ValueError(f"{len(pairs)} texts were sent and {len(told)} came back")
            return [self._score(pair, one) for pair, one in zip(pairs, told, strict=True)]
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise self._no_echo() from error

    def _score(self, pair: Pair, told: dict[str, Any]) -> Score:
        prompt, continuation = pair
        tokens, offsets, logprobs, likeliest = (told[name] for name in ("tokens", "text_offset", "token_logprobs", "top_logprobs"))
        start, end = len(prompt), len(prompt) + len(continuation)
        # A beginning-of-text token that the server shows moves all that follows.
        shown = len(tokens[0]) if tokens and logprobs[0] is None and not (prompt + continuation).startswith(tokens[0]) else 0
        places = [i for i, offset in enumerate(offsets) if start <= offset - shown < end and not (shown and i == 0)]
        astride = any(offset - shown < start < offset - shown + len(token) for offset, token in zip(offsets, tokens, strict=True))
        if astride or (continuation and not places):
            raise UsageError(
                f"{self._endpoint.address} joins the end of {prompt[-20:]!r} and the beginning of {continuation[:20]!r} in one token.",
                fix="Let the continuation begin with a space (`target_delimiter`), or measure the model on this machine.",
            )
        if any(logprobs[i] is None for i in places):
            raise MygptError(
                f"{self._endpoint.address} gives no log-probability for the first token of a text.",
                fix="Whole texts need a server that puts a beginning-of-text token before them: measure the model on this machine.",
            )
        values = [float(logprobs[i]) for i in places]
        greedy = all(value >= max(likeliest[i].values()) for value, i in zip(values, places, strict=True))
        return Score(sum(values), len(places), len(continuation.encode()), greedy)

    def _no_echo(self) -> MygptError:
        return MygptError(
            f"{self._endpoint.address}/completions does not echo a prompt with log-probabilities.",
            fix="Serve the model with mygpt or vLLM, or measure it on this machine.",
        )


def _parts(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """A few for each request, with a prompt or without one."""
    part: list[Pair] = []
    for pair in pairs:
        if part and (len(part) == _TEXTS_AT_ONCE or bool(part[0][0]) != bool(pair[0])):
            yield part
            part = []
        part.append(pair)
    if part:
        yield part
