"""What the behaviour measures share: their items, written for this project, and the form of a row and of a headline figure.

Rows have the columns of every task's predictions (`item_id, task, version, form, ..., parsed, cluster` and one column per metric), so that
two models can be compared on them like on any task. `parsed` is false where the rules could not tell what an answer says.
"""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.digest import digest_value
from mygpt.infer.protocols import Answer, Identity
from mygpt.metrics.bootstrap import Interval
from mygpt.metrics.wilson import wilson

VERSION = "1"  # of the items and the rules that read answers: a measure that changes either has its own from then on
RELIABLE_ITEMS = 30  # an interval over fewer is shown and called unreliable

Row = dict[str, Any]


def load_items(name: str) -> list[Row]:
    """The rows of `behaviour/<name>.jsonl`."""
    text = (resources.files("mygpt.evaluate") / "behaviour" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def asked(*turns: str, item_id: str = "") -> Conversation:
    """`turns` alternate, the user's first and last."""
    roles = ("user", "assistant")
    return Conversation(tuple(Message(roles[i % 2], turn) for i, turn in enumerate(turns)), item_id)  # type: ignore[arg-type]


def behaviour_row(
    task: str,
    item_id: str,
    conversation: Conversation,
    answer: Answer,
    *,
    parsed: bool,
    reference: str = "",
    **columns: Any,
) -> Row:
    return {
        "item_id": item_id,
        "task": task,
        "version": VERSION,
        "form": "generate",
        "prompt_sha256": digest_value([[m.role, m.content] for m in conversation.messages]),
        "prompt_tokens": answer.prompt_tokens or None,  # not every engine tells
        "question": conversation.question,
        "answer": answer.text,
        "reference": reference,
        "finish_reason": answer.finish_reason,
        "parsed": parsed,
        "cluster": item_id,
        **columns,
    }


def behaviour_facts(
    task: str, primary: str, higher_is_better: Mapping[str, bool], model: Identity, *, version: str = VERSION
) -> dict[str, Any]:
    return {
        "task": task,
        "version": version,
        "form": "generate",
        "primary": primary,
        "metrics": list(higher_is_better),
        "higher_is_better": dict(higher_is_better),
        "chance": None,
        "model": model,
    }


def share(outcomes: Sequence[bool]) -> dict[str, Any] | None:
    """How many of the outcomes are true, with Wilson's interval; None when there are none: 0 of 0 is not 0."""
    return limits(wilson(sum(outcomes), len(outcomes)), len(outcomes)) if outcomes else None


def limits(interval: Interval, num_items: int) -> dict[str, Any]:
    found = {"estimate": interval.estimate, "low": interval.low, "high": interval.high, "items": num_items}
    return {**found, "reliable": num_items >= RELIABLE_ITEMS}
