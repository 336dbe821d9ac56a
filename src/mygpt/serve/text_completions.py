"""What a text completion takes of the engine, on its thread: an echo scored token by token, or raw text continued."""

from collections.abc import Generator, Sequence

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.infer.protocols import Answer, TokenScores
from mygpt.serve.api_error import ApiError
from mygpt.serve.openai_format import finish_reason
from mygpt.serve.served import Served, TextModel, Tokens
from mygpt.serve.text_format import Choice, Prompt, TextRequest, token_logprobs

_SCORED_AT_ONCE = 8  # between two looks at whether the client is still there


def text_choices(served: Served, asked: TextRequest) -> Generator[Choice | str]:
    """One choice for each prompt, in order; strings between them are progress."""
    texts = served.texts
    if texts is None:
        message = f"`{served.name}` answers questions from documents and continues no raw text. Name another of /v1/models."
        raise ApiError(400, message, param="model", code="unsupported_model")
    encoded = [_encoded(texts, prompt, served.context_tokens, asked) for prompt in asked.prompts]
    if not asked.echo:
        for prompt, (before, own) in zip(asked.prompts, encoded, strict=True):
            yield from _continued(served, texts, prompt, before + own, asked)
        return
    for start in range(0, len(encoded), _SCORED_AT_ONCE):
        part = encoded[start : start + _SCORED_AT_ONCE]
        scores = texts.score([before + own for before, own in part], num_likeliest=max(1, asked.logprobs or 0))
        for (before, own), one in zip(part, scores, strict=True):
            yield _echoed(texts, before, own, one, asked)


def _encoded(texts: TextModel, prompt: Prompt, context_tokens: int, asked: TextRequest) -> tuple[Tokens, Tokens]:
    """(what stands before the text and is not shown, the text)."""
    before, own = texts.encode(prompt, beginning=asked.add_beginning) if isinstance(prompt, str) else (Tokens(), prompt)
    if not isinstance(prompt, str):
        off = [i for i in prompt if not 0 <= i < texts.vocabulary]
        if off:
            raise ApiError(400, f"The token {off[0]} is not one of the {texts.vocabulary} of this model.", param="prompt")
    if not before + own:
        raise ApiError(400, "A prompt has no tokens.", param="prompt", code="invalid_parameter")
    if len(before + own) + asked.max_tokens > context_tokens:
        raise ApiError(
            400,
            f"This model's maximum context length is {context_tokens} tokens; a prompt takes {len(before + own)} and {asked.max_tokens} "
            "were asked for. Shorten it.",
            param="prompt",
            code="context_length_exceeded",
        )
    return before, own


def _echoed(texts: TextModel, before: Tokens, own: Tokens, scores: TokenScores, asked: TextRequest) -> Choice:
    new = scores.likeliest[-1][:1] if asked.max_tokens else ()  # the greedy token
    shown = own + tuple(token for token, _ in new)
    pieces = texts.pieces(shown)
    ends = bool(new) and new[0][0] in texts.stop_token_ids
    text = "".join(pieces[: len(own)]) + ("" if ends else "".join(pieces[len(own) :]))
    told = None
    if asked.logprobs is not None:
        first = len(before) - 1  # of `scores`: what is said of the first token shown; -1: nothing stands before it
        logprobs: list[float | None] = [*scores.logprobs[max(first, 0) :], *(logprob for _, logprob in new)]
        ranked = [[(texts.pieces([token])[0], value) for token, value in row[: asked.logprobs]] for row in scores.likeliest]
        likeliest: list[Sequence[tuple[str, float]] | None] = [*ranked[max(first, 0) : len(before + own) - 1], *(ranked[-1] for _ in new)]
        if not before:
            logprobs, likeliest = [None, *logprobs], [None, *likeliest]
        told = token_logprobs(pieces, logprobs, likeliest)
    return Choice(text, "stop" if ends or not new else "length", len(own), len(new), told)


def _continued(served: Served, texts: TextModel, prompt: Prompt, ids: Tokens, asked: TextRequest) -> Generator[Choice | str]:
    text = prompt if isinstance(prompt, str) else "".join(texts.pieces(prompt))
    before, own = texts.encode(text)
    if not isinstance(prompt, str) and prompt not in (own, before + own):
        message = "These tokens do not spell a text that this model reads as the same tokens. Send the text."
        raise ApiError(400, message, param="prompt", code="unsupported_parameter")
    for piece in served.completer.stream(Conversation((Message("text", text),)), asked.sampling):
        if isinstance(piece, Answer):
            yield Choice(piece.text, finish_reason(piece), piece.prompt_tokens or len(ids), len(piece.token_ids))
            return
        yield piece
