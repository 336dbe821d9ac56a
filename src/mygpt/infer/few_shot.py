"""Few-shot prompting: show the model solved examples as earlier turns, then ask. Itself a Completer.

Source: Brown et al. 2020, "Language models are few-shot learners", arXiv:2005.14165, section 2.
We differ: the examples are turns of a conversation, as a chat model was trained to read them, instead of one text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.digest import digest_value
from mygpt.infer.protocols import Answer, Completer, Identity, Sampling


class FewShot:
    def __init__(self, completer: Completer, examples: Sequence[Conversation]):
        self.completer = completer
        self._shown = tuple(m for example in examples for m in _question_and_answer(example))

    @property
    def identity(self) -> Identity:
        shown = [asdict(m) for m in self._shown]
        return {
            "wrapper": "few_shot",
            "num_examples": len(shown) // 2,
            "examples": digest_value(shown),
            "messages": shown,
            "completer": self.completer.identity,
        }

    @classmethod
    def of_messages(cls, completer: Completer, messages: Sequence[Mapping[str, Any]]) -> "FewShot":
        """As an identity recorded it."""
        made = cls(completer, ())
        made._shown = tuple(Message(m["role"], m["content"]) for m in messages)
        return made

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        return self.completer.complete([self._with_examples(c) for c in conversations], sampling)

    def _with_examples(self, conversation: Conversation) -> Conversation:
        system = tuple(m for m in conversation.messages[:1] if m.role == "system")
        return Conversation(system + self._shown + conversation.messages[len(system) :], conversation.id)


def choose_examples(rows: Sequence[Conversation], count: int) -> list[Conversation]:
    """`count` rows of ordinary answer length from as many places as there are: near the median, one per document while documents last."""
    if not rows or count < 1:
        return []
    median = sorted(len(row.answer) for row in rows)[len(rows) // 2]
    chosen: list[Conversation] = []
    left = sorted(rows, key=lambda row: (abs(len(row.answer) - median), row.id))
    while left and len(chosen) < count:
        seen = {_document(row) for row in chosen}
        following = next((row for row in left if _document(row) not in seen), left[0])
        chosen.append(following)
        left.remove(following)
    return chosen


def _document(row: Conversation) -> str:
    return row.sources[0].document_id if row.sources else row.id


def _question_and_answer(example: Conversation) -> tuple[Message, Message]:
    return Message("user", example.question), Message("assistant", example.answer)
