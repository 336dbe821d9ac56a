"""Which reward a recipe learns from, as a setting: `--set reward=numeric`, and what each needs of the rows.

    numeric       the reference answer in the row holds a number
    program       facts of the row: `function`, `tests` that call it and raise where it is wrong, `context` that they need (optional)
    json_schema   the fact `json_schema` of the row, or `reward.for_all`

A reward model, a classifier or a function of one's own is handed to the recipe instead.

    with opened_reward(config.reward, rows) as reward: ...      what a row lacks is refused here, before anything is sampled
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from mygpt.align.unit_test_reward import UnitTestReward, UnitTests
from mygpt.align.verifiers import JsonSchemaReward, NumericReward
from mygpt.artifacts.dataset import Conversation
from mygpt.core.config import Config
from mygpt.core.errors import Refused
from mygpt.guard.sandbox import Limits, Sandbox
from mygpt.infer.rewards import IdentifiedReward
from mygpt.metrics.json_schema import require_known
from mygpt.metrics.numeric_answer import last_number


class NumericChoice(Config):
    """1 where the last number is that of the reference answer."""

    name: Literal["numeric"] = "numeric"
    relative_tolerance: NonNegativeFloat = 0.0


class ProgramChoice(Config):
    """What its unit tests say of the program in the answer, in the sandbox."""

    name: Literal["program"] = "program"
    seconds: PositiveFloat = 10.0  # that the program may take, and its tests


class JsonSchemaChoice(Config):
    """1 where the answer is JSON that fits the schema."""

    name: Literal["json_schema"] = "json_schema"
    for_all: dict[str, Any] | None = None  # the schema of rows without one


RewardChoice = Annotated[NumericChoice | ProgramChoice | JsonSchemaChoice, Field(discriminator="name")]


@contextmanager
def opened_reward(choice: RewardChoice, rows: Sequence[Conversation]) -> Iterator[IdentifiedReward]:
    """Raises Refused for rows that this reward cannot judge."""
    match choice:
        case NumericChoice():
            _require(rows, lambda row: "" if last_number(row.answer) else "no number in the reference answer", choice)
            yield NumericReward(choice.relative_tolerance)
        case JsonSchemaChoice():
            _require_ids(rows, choice)
            _require(rows, lambda row: _schema_fault(row, choice.for_all), choice)
            yield JsonSchemaReward({r.id: json.loads(r.facts["json_schema"]) for r in rows if "json_schema" in r.facts}, choice.for_all)
        case ProgramChoice():
            _require_ids(rows, choice)
            _require(rows, lambda row: next((f"no fact `{key}`" for key in ("function", "tests") if not row.facts.get(key)), ""), choice)
            tests = {r.id: UnitTests(r.facts["function"], r.facts["tests"], r.facts.get("context", "")) for r in rows}
            with Sandbox() as sandbox:
                yield UnitTestReward(tests, sandbox=sandbox, limits=Limits(seconds=choice.seconds))


def _schema_fault(row: Conversation, for_all: Any) -> str:
    text = row.facts.get("json_schema")
    if text is None and for_all is None:
        return "no fact `json_schema`"
    try:
        require_known(for_all if text is None else json.loads(text))
    except ValueError as error:
        return f"a schema that cannot be used ({error})"
    return ""


def _require(rows: Sequence[Conversation], fault_of: Callable[[Conversation], str], choice: RewardChoice) -> None:
    faults = [(number, row, fault) for number, row in enumerate(rows) if (fault := fault_of(row))]
    if faults:
        number, row, fault = faults[0]
        raise Refused(
            f"{len(faults)} of {len(rows)} prompts cannot be judged by `reward={choice.name}`; "
            f"the first is number {number}{f' ({row.id})' if row.id else ''}: {fault}.",
            fix="Give the rows what it needs (see docs/align/grpo.md), or choose another `reward`.",
        )


def _require_ids(rows: Sequence[Conversation], choice: RewardChoice) -> None:
    often, count = Counter(row.id for row in rows).most_common(1)[0]
    if count > 1 or not often:
        raise Refused(
            f"`reward={choice.name}` finds what belongs to a prompt by its id, and {count} of {len(rows)} have the id `{often}`.",
            fix="Give every row an id of its own.",
        )
