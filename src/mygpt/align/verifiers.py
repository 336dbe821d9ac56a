"""Rewards that check instead of judging: an answer is right or it is not, by what its row says.

    NumericReward()               the last number of the answer is that of the row's reference answer: 1, else 0
    JsonSchemaReward(schemas)     the answer is JSON that fits the schema of its row, or the one for all: 1, else 0

Programs are checked by `unit_test_reward`; a function of one's own is `rewards.NamedReward`.

Source     rewards from verifiers: Lambert et al. 2024, arXiv:2411.15124, section 6 (RLVR); the numeric answer: Cobbe et al. 2021,
           arXiv:2110.14168
We differ  numbers are compared as numbers (`metrics/numeric_answer`), flexibly: the form of an answer is not rewarded beside what it says
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mygpt.artifacts.dataset import Conversation
from mygpt.core.digest import digest_value
from mygpt.infer.protocols import Answer, Identity
from mygpt.metrics.json_schema import json_value, violation
from mygpt.metrics.numeric_answer import numeric_match


@dataclass(frozen=True)
class NumericReward:
    relative_tolerance: float = 0.0

    @property
    def identity(self) -> Identity:
        return {"reward": "numeric", "relative_tolerance": self.relative_tolerance}

    def __call__(self, prompt: Conversation, answer: Answer) -> float:
        return float(bool(numeric_match(answer.text, prompt.answer, relative_tolerance=self.relative_tolerance)))


@dataclass(frozen=True)
class JsonSchemaReward:
    """`schemas` by the id of the conversation; `schema` is that of all others."""

    schemas: Mapping[str, Any]
    schema: Any = None

    @property
    def identity(self) -> Identity:
        return {"reward": "json_schema", "schemas": digest_value([dict(self.schemas), self.schema])}

    def __call__(self, prompt: Conversation, answer: Answer) -> float:
        schema = self.schemas.get(prompt.id, self.schema)
        try:
            return float(not violation(json_value(answer.text), schema))
        except ValueError:
            return 0.0
