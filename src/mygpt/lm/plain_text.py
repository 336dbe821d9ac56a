"""Text as a model reads it without a chat template: what a base model continues, and what log-probabilities are of.

A special token's spelling stays text: what a document or a judge's prompt holds must not be able to end a turn.
"""

from typing import Any

from mygpt.artifacts.dataset import Conversation
from mygpt.core.errors import Refused


def text_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """With the beginning-of-text token first where there is no text, and where the tokenizer puts it before every text (Llama, Gemma)."""
    beginning = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    always = tokenizer.encode("")[:1] == [beginning]
    return (*([beginning] if always or not text else []), *inner_ids(tokenizer, text))


def inner_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Of text that follows other text."""
    return tuple(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True, verbose=False))


def prompt_text(conversation: Conversation) -> str:
    """What an encoder reads: the user's message, after the system's where there is one. Raw text stays as it is.

    Raises Refused for a talk of several turns: without a chat template, who said what would be lost.
    """
    if conversation.raw_text is not None:
        return conversation.raw_text
    roles = [message.role for message in conversation.prompt]
    if roles not in (["user"], ["system", "user"]):
        raise Refused(
            f"An encoder-decoder reads one text, and this conversation has the turns {', '.join(roles) or 'none'} before its answer.",
            fix="Write what it must know into one user message.",
        )
    return "\n\n".join(message.content for message in conversation.prompt)


def named(tokenizer: Any) -> str:
    """Whose it is: the folder that it was read from."""
    return f"The model in {tokenizer.name_or_path}" if tokenizer.name_or_path else "This model"


class TextRenderer:
    """Stands in for a `ChatRenderer` where a model has no chat template: raw text is taken, a conversation is refused."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self.stop_token_ids: tuple[int, ...] = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        self.template_digest = ""

    def prompt(self, conversation: Conversation) -> tuple[int, ...]:
        text = conversation.raw_text
        if text is None:
            raise Refused(
                f"{named(self._tokenizer)} has no chat template, so it is a base model.",
                fix="Use its instruction-tuned variant, write a chat_template.jinja, or give it raw text (a task with `chat: false`).",
            )
        return text_ids(self._tokenizer, text)
