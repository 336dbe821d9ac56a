"""Prompt and token parity: the same question reaches the model as the same token ids in tuning, evaluation and serving, or it is an error.

Every row of a task's run keeps the SHA-256 of the token ids it was asked with (of a choice and of a text: of all ids that are scored), so
that two runs can be shown to have asked the same; a comparison counts where they did not. Checked are
the slips that change scores by tens of points and raise no error elsewhere: a second beginning-of-text token and a turn's stop token that
generation does not stop at, here; a stop token that tuning does not train, in `training/preflight`; a chat template other than that of
tuning, in `lm/load`, through which evaluation and serving pass alike.

Source: the slips, threads of lm-evaluation-harness (#1841, pull request 2034) and lighteval (#82, #649); the checks are ours.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from mygpt.artifacts.dataset import Conversation
from mygpt.core.digest import digest_text, digest_value
from mygpt.core.errors import Refused
from mygpt.infer.protocols import Completer, Scorer


@dataclass(frozen=True)
class TokenizerFacts:
    """What has to be known of a tokenizer and its chat template to check ids."""

    bos_id: int | None
    eos_id: int | None
    turn_end_ids: tuple[int, ...]  # what the chat template ends an answer with; empty: no template, or none that ends in a token
    template_digest: str  # "" without a template

    @classmethod
    def of(cls, tokenizer: Any) -> "TokenizerFacts":
        if not getattr(tokenizer, "chat_template", None):
            return cls(tokenizer.bos_token_id, tokenizer.eos_token_id, (), "")
        from mygpt.lm.chat import ChatRenderer

        renderer = ChatRenderer(tokenizer)
        return cls(tokenizer.bos_token_id, tokenizer.eos_token_id, renderer.stop_token_ids, renderer.template_digest)


def ids_digest(token_ids: Sequence[int]) -> str:
    """SHA-256 of the ids as a JSON list."""
    return digest_value(list(token_ids))


def engine_of(completer: Completer) -> Completer:
    """Who renders the prompt in the end: examples before it and retrieval hold the next one as `completer`."""
    inner = getattr(completer, "completer", None)
    return completer if inner is None else engine_of(inner)


def prompt_ids(completer: Completer, conversation: Conversation) -> tuple[int, ...] | None:
    """The ids that an engine feeds for a conversation; None where it does not tell (a server)."""
    renderer = getattr(completer, "renderer", None)
    return tuple(renderer.prompt(conversation)) if renderer is not None else None


def tokenizer_facts(completer: Completer) -> TokenizerFacts | None:
    """None where the completer does not show how it renders (a server)."""
    renderer = getattr(completer, "renderer", None)
    return TokenizerFacts.of(renderer._tokenizer) if renderer is not None else None


def scored_ids(scorer: Scorer, prompt: str, continuations: Sequence[str]) -> list[tuple[tuple[int, ...], int]] | None:
    """For each continuation the ids that are scored, and where the scored part begins; None where the scorer does not tell.

    Raises Refused where they begin with the beginning-of-text token twice.
    """
    tell = getattr(scorer, "scored_ids", None)
    if tell is None:
        return None
    beginning = tell("", "").ids[0]
    texts = [tell(prompt, continuation) for continuation in continuations]
    for text in texts:
        if list(text.ids[:2]) == [beginning, beginning]:
            raise Refused(
                f"What is scored begins with the beginning-of-text token ({beginning}) twice: {prompt[:40]!r}.",
                fix="Encode it with `add_special_tokens=False`, or once without the token in front.",
            )
    return [(tuple(text.ids), text.start) for text in texts]


def prompt_sha256(text: str, token_ids: Sequence[int] | None) -> str:
    """Of the ids where they are known, else of the text."""
    return digest_text(text) if token_ids is None else ids_digest(token_ids)


def check_prompt_ids(token_ids: Sequence[int], facts: TokenizerFacts) -> None:
    """Raises Refused where the prompt is empty or begins with the beginning-of-text token twice."""
    if not token_ids:
        raise Refused("The prompt has no tokens.", fix="Give the model something to continue.")
    if facts.bos_id is not None and list(token_ids[:2]) == [facts.bos_id, facts.bos_id]:
        raise Refused(
            f"The prompt begins with the beginning-of-text token ({facts.bos_id}) twice: the template writes it, and so did the tokenizer.",
            fix="Encode text that a chat template wrote with `add_special_tokens=False`.",
        )


def check_stop_ids(stop_ids: Collection[int], facts: TokenizerFacts) -> None:
    """Raises Refused where generation would not stop at what the chat template ends an answer with."""
    if facts.turn_end_ids and facts.turn_end_ids[0] not in stop_ids:
        raise Refused(
            f"The chat template ends an answer with token {facts.turn_end_ids[0]}, and generation stops at {sorted(stop_ids)} only: "
            "answers would run on into a made-up next turn.",
            fix="Add the token to `eos_token_id` of generation_config.json.",
        )
