"""Prompt and token parity: the same question reaches the model as the same token ids in tuning, evaluation and serving, or it is an error.

Every row of a task's run keeps the SHA-256 of its prompt's token ids, so that two runs can be shown to have asked the same. Checked are
the slips that change scores by tens of points and raise no error elsewhere: a second beginning-of-text token and a turn's stop token that
generation does not stop at, here; a stop token that tuning does not train, in `training/preflight`; a chat template other than that of
tuning, in `lm/load`, through which evaluation and serving pass alike.

Source: the slips, threads of lm-evaluation-harness (#1841, pull request 2034) and lighteval (#82, #649); the checks are ours.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mygpt.artifacts.dataset import Conversation
from mygpt.core.digest import digest_text, digest_value
from mygpt.core.errors import Refused
from mygpt.infer.protocols import Completer


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


def prompt_ids(completer: Completer, conversation: Conversation) -> tuple[int, ...] | None:
    """The ids that a completer feeds for a conversation; None where it does not tell (a server)."""
    renderer = getattr(completer, "renderer", None)
    return tuple(renderer.prompt(conversation)) if renderer is not None else None


def tokenizer_facts(completer: Completer) -> TokenizerFacts | None:
    """None where the completer does not show how it renders (a server)."""
    renderer = getattr(completer, "renderer", None)
    return TokenizerFacts.of(renderer._tokenizer) if renderer is not None else None


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


def check_same_prompts(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Rows of several runs of one task, by the run's name. Raises Refused where an item was asked in different tokens."""
    first_name, *others = runs
    asked = {row["item_id"]: row["prompt_sha256"] for row in runs[first_name]}
    for name in others:
        differing = [row["item_id"] for row in runs[name] if asked.get(row["item_id"], row["prompt_sha256"]) != row["prompt_sha256"]]
        if differing:
            raise Refused(
                f"{len(differing)} items were asked in different tokens by `{first_name}` and `{name}`, first `{differing[0]}`.",
                fix="Models with different tokenizers or templates are compared by what they answer: say so, and leave this check out.",
            )
