"""Feedback: what people said about answers (thumbs up or down), with the question, the answer and its citations.

Payload  feedback.jsonl, one object per line: time, rating (1 or -1), question, answer, citations, model, comment
"""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from mygpt.artifacts.artifact import Artifact


@dataclass(frozen=True)
class Feedback(Artifact):
    kind: ClassVar[str] = "feedback"

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        with open(self.payload / "feedback.jsonl", encoding="utf-8") as lines:  # str.splitlines also cuts at U+2028 inside a comment
            return [json.loads(line) for line in lines if line.strip()]
