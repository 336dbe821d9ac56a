"""The one place where conversations become token ids and a loss mask. Training and serving both render here, so they cannot differ.

The text is what the model's own chat template writes. Where an answer begins and ends in it is found from the structure of the
rendering, never by looking for markers:

    begins   after the template's rendering of the messages before it, with the generation prompt: what the model sees when serving
    ends     the template is rendered a second time with a stand-in for the answer; what follows the stand-in follows the answer

Trained are the answer and the first special token after it, the turn's stop token. An answer in an earlier turn is trained only when
the template writes it there as it writes it in last place (Qwen 3 does not: it drops earlier thinking).

A special token's spelling inside a message ("<|im_end|>" in a document) stays text: it never becomes the special token.

We differ from `apply_chat_template(tokenize=True)` in that, and in one more: where the tokenizer would merge the end of the generation
prompt with the beginning of an answer, the two are encoded apart, because at serving time the prompt ends there.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from jinja2.exceptions import TemplateError

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.digest import digest_value
from mygpt.core.errors import MygptError, Refused, UsageError
from mygpt.lm.plain_text import named, text_ids

_STAND_IN = "\uf0e1\uf0e2\uf0e3"  # private use: in no document, not white space, nothing a template looks for
_LITERAL = "\uf0e4"  # stands for a special token's spelling inside a message
_DATE = datetime.date(2024, 7, 26)  # Llama 3.1's own default
_DATE_CODES = ("%d", "%m", "%Y", "%y", "%b", "%B", "%a", "%A", "%j", "%H", "%M", "%S")
# Put before a template that asks for today's date: the macro hides transformers' function of that name.
_PINNED_DATE = (
    "{%- macro strftime_now(form) %}{{- form"
    + "".join(f".replace('{code}', '{_DATE.strftime(code)}')" for code in _DATE_CODES)
    + " }}{%- endmacro %}"
)


@dataclass(frozen=True)
class Part:
    """`token_ids[start:end]` of a rendering, for display."""

    role: Literal["prompt", "assistant"]
    start: int
    end: int
    trained: bool


@dataclass(frozen=True)
class Rendered:
    token_ids: tuple[int, ...]
    trained: tuple[bool, ...]  # trained[i]: token i is a label, an answer's text or its stop token
    parts: tuple[Part, ...]
    warnings: tuple[str, ...] = ()


class ChatRenderer:
    """One tokenizer's chat template. Raises Refused when it has none; `render` refuses a template that cannot be trained on rightly.

    `warnings` says in advance what is special about it.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._special = {t.content: i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
        if tokenizer.eos_token:
            self._special.setdefault(tokenizer.eos_token, tokenizer.eos_token_id)
        self._literals = sorted(self._special, key=len, reverse=True)
        if not tokenizer.chat_template:
            raise Refused(
                f"{named(tokenizer)} has no chat template, so it is a base model.",
                fix="Use its instruction-tuned variant, or write a chat_template.jinja.",
            )
        written = tokenizer.get_chat_template()
        self._asks_date = "strftime_now" in written
        self._template = _PINNED_DATE + written if self._asks_date else written
        self._refusal: MygptError | None = None  # why it cannot be trained on; serving may still be possible
        self._closing, stop = "", None
        try:
            self._closing, stop = self._end_of_answer()
        except (Refused, UsageError) as error:
            self._refusal = error
        self.stop_token_ids: tuple[int, ...] = tuple(dict.fromkeys(i for i in (stop, tokenizer.eos_token_id) if i is not None))
        self._keeps_system = self._writes(Message("system", _STAND_IN))
        self.warnings: tuple[str, ...] = tuple(self._warnings())

    @property
    def template_digest(self) -> str:
        """Of all that decides the text: equal digests render equally."""
        tokens = [self._tokenizer.bos_token, self._tokenizer.eos_token]
        return digest_value({"template": self._template, "tokens": tokens, "keeps_system": self._keeps_system})

    def render(self, conversation: Conversation) -> Rendered:
        """For training: the whole conversation, and which of its tokens are labels. Raises Refused where that cannot be right."""
        if self._refusal is not None:
            raise Refused(self._refusal.what, fix=self._refusal.fix)
        return self._encode_turns(self._accepted(conversation), answer_next=False)

    def prompt(self, conversation: Conversation) -> tuple[int, ...]:
        """For generation: the messages before the answer (a last assistant turn is left out), up to where the answer begins.

        Raw text (`Conversation.raw_text`) goes around the template.
        """
        if conversation.raw_text is not None:
            return text_ids(self._tokenizer, conversation.raw_text)
        messages = self._accepted(replace(conversation, messages=conversation.prompt))
        return self._encode_turns(messages, answer_next=True).token_ids

    def text(self, token_ids: Sequence[int]) -> str:
        """What these tokens spell, special tokens included."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    # -- from messages to text --------------------------------------------------------------------------------------------

    def _accepted(self, conversation: Conversation) -> list[Message]:
        """The messages as this template takes them: special spellings masked, a refused system message moved into the first user's."""
        messages = [Message(m.role, self._masked(m.content)) for m in conversation.messages]
        if not messages:
            raise UsageError("The conversation has no messages.", fix="Give at least one user message.")
        if messages[0].role == "system" and not self._keeps_system:
            if len(messages) < 2 or messages[1].role != "user":
                raise UsageError(
                    "This template has no system role, and no user message follows.", fix="Put the instruction into a user message."
                )
            messages[:2] = [Message("user", f"{messages[0].content}\n\n{messages[1].content}")]
        return messages

    def _write(self, messages: Sequence[Message], *, answer_next: bool) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    [{"role": m.role, "content": m.content} for m in messages],
                    chat_template=self._template,
                    tokenize=False,
                    add_generation_prompt=answer_next,
                )
            )
        except (TemplateError, TypeError, ValueError) as error:
            roles = ", ".join(m.role for m in messages)
            raise UsageError(
                f"The model's chat template does not take this conversation ({roles}): {error}.",
                fix="Most templates take an optional system message, then user and assistant in turn.",
            ) from error

    def _writes(self, message: Message) -> bool:
        """Whether a first message of this role reaches the model at all."""
        try:
            return message.content in self._write([message, Message("user", "Hello")], answer_next=True)
        except UsageError:
            return False

    def _masked(self, content: str) -> str:
        for private in (*_STAND_IN, _LITERAL):
            content = content.replace(private, "\ufffd")
        for index, literal in enumerate(self._literals):
            if literal in content:
                content = content.replace(literal, f"{_LITERAL}{index}{_LITERAL}")
        return content

    # -- where answers begin and end --------------------------------------------------------------------------------------

    def _end_of_answer(self) -> tuple[str, int | None]:
        """What the template writes after an answer up to its stop token, and that token's id."""
        written = self._write([Message("user", "Hello"), Message("assistant", _STAND_IN)], answer_next=False)
        after = written.partition(_STAND_IN)[2]
        if written.count(_STAND_IN) != 1:
            raise Refused(
                "The model's chat template does not write an assistant's text once, as it is.", fix="Use a model with another template."
            )
        ids = self._encode(after)
        stop = next((i for i, token in enumerate(ids) if token in self._special.values()), None)
        spelling = "" if stop is None else str(self._tokenizer.convert_ids_to_tokens(ids[stop]))
        if stop is None or spelling not in after:
            raise Refused(
                f"The model's chat template ends an answer with {after!r}, without a special token: a model so trained would never stop.",
                fix="Let the template end each assistant turn with `{{ eos_token }}`.",
            )
        return after[: after.index(spelling) + len(spelling)], ids[stop]

    def _answers(self, messages: Sequence[Message], text: str, *, answer_next: bool) -> tuple[list[tuple[int, int]], list[str]]:
        """Where in `text` the trained stretches stand (answer and stop token), and what has to be said about the others."""
        found: list[tuple[int, int]] = []
        warnings: list[str] = []
        for k, message in enumerate(messages):
            if message.role != "assistant":
                continue
            stretch = self._answer(messages, k, text, answer_next=answer_next)
            if stretch is not None:
                found.append(stretch)
            elif k == len(messages) - 1:
                raise Refused(
                    "The model's chat template writes a prompt differently once its answer is there: training would not match serving.",
                    fix="Use a model with another template: those that begin every answer with hidden thinking are of this kind.",
                )
            else:
                warnings = ["The chat template writes earlier answers differently from the last one: only the last answer is trained."]
        return found, warnings

    def _answer(self, messages: Sequence[Message], k: int, text: str, *, answer_next: bool) -> tuple[int, int] | None:
        """The stretch of answer `k` and its stop token; None where it is not written as it would be in last place."""
        prompt = self._write(messages[:k], answer_next=True) if k else ""
        stood_in = [*messages[:k], Message("assistant", _STAND_IN), *messages[k + 1 :]]
        after = self._write(stood_in, answer_next=answer_next).rpartition(_STAND_IN)[2]
        start, end = len(prompt), len(text) - len(after) + len(self._closing)
        if not self._closing:
            return None
        if not (text.startswith(prompt) and text.endswith(after) and after.startswith(self._closing) and end >= start + len(self._closing)):
            return None
        if k < len(messages) - 1 and not self._write(messages[: k + 1], answer_next=False).startswith(text[:end]):
            return None
        return start, end

    def _require_written(self, messages: Sequence[Message], text: str, *, answer_next: bool) -> None:
        """Some templates pass over roles that they do not know."""
        for k, message in enumerate(messages):
            if message.role == "assistant" or message.content.strip() in text:
                continue
            stood_in = [*messages[:k], Message(message.role, _STAND_IN), *messages[k + 1 :]]
            if _STAND_IN not in self._write(stood_in, answer_next=answer_next):
                raise UsageError(
                    f"The model's chat template leaves out the {message.role} message (number {k + 1}).",
                    fix="Put its text into a user message.",
                )

    # -- from text to tokens ----------------------------------------------------------------------------------------------

    def _encode_turns(self, messages: Sequence[Message], *, answer_next: bool) -> Rendered:
        text = self._write(messages, answer_next=answer_next)
        self._require_written(messages, text, answer_next=answer_next)
        answers, warnings = self._answers(messages, text, answer_next=answer_next)
        ids: list[int] = []
        trained: list[bool] = []
        parts: list[Part] = []
        context, done = "", 0
        context_ids: list[int] = []
        bounds = [stretch for start, end in answers for stretch in ((start, False), (end, True))] + [(len(text), False)]
        for end, is_answer in bounds:
            piece = text[done:end]
            longer = self._encode(context + piece)
            if longer[: len(context_ids)] == context_ids:
                new, context, context_ids = longer[len(context_ids) :], context + piece, longer
            else:  # a merge would cross the boundary
                new = self._encode(piece)
                context, context_ids = piece, new
            if new:
                parts.append(Part("assistant" if is_answer else "prompt", len(ids), len(ids) + len(new), is_answer))
            ids += new
            trained += [is_answer] * len(new)
            done = end
        return Rendered(tuple(ids), tuple(trained), tuple(parts), tuple(warnings))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for i, piece in enumerate(text.split(_LITERAL)):
            is_literal = i % 2 == 1  # every second piece is the number of a masked spelling
            spelled = self._literals[int(piece)] if is_literal else piece
            if spelled:
                ids += self._tokenizer(spelled, add_special_tokens=False, split_special_tokens=is_literal, verbose=False)["input_ids"]
        return ids

    def _warnings(self) -> list[str]:
        said = []
        if self._asks_date:
            said.append(f"The chat template writes today's date; it is always given as {_DATE:%d %b %Y}, in training and in serving.")
        if not self._keeps_system:
            said.append("The chat template has no system role: a system message is put before the first user message.")
        two_turns = [Message("user", "One?"), Message("assistant", "One."), Message("user", "Two?"), Message("assistant", "Two.")]
        try:
            said += self._answers(two_turns, self._write(two_turns, answer_next=False), answer_next=False)[1]
        except (Refused, UsageError) as error:
            self._refusal = self._refusal or error
        return said + ([self._refusal.what] if self._refusal else [])
