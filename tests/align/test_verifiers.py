"""Rewards that check, and the rows that they cannot judge."""

import json

import pytest

from mygpt.align.grpo import GRPOConfig, grpo
from mygpt.align.reward_choice import JsonSchemaChoice, NumericChoice, ProgramChoice, opened_reward
from mygpt.align.verifiers import JsonSchemaReward, NumericReward
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.catalog import where
from mygpt.cli.recipe_call import help_text, recipe_inputs
from mygpt.core.config import parse_settings, resolve
from mygpt.core.errors import Refused, UsageError
from mygpt.infer.protocols import Answer
from mygpt.infer.rewards import rewards_of


def asked(question: str, answer: str = "", *, id: str = "", **facts: str) -> Conversation:
    said = (Message("assistant", answer),) if answer else ()
    return Conversation((Message("user", question), *said), id, facts=facts)


def test_numeric() -> None:
    """GSM8K's form of reference: its last number counts."""
    row = asked("What is 12 + 30?", "12 + 30 = 42\n#### 42")
    answers = ["42", "It is 42.", "42.00", "30 + 12 = 42", "43", "42 or 41", "no idea", "", "-42"]
    rewards = rewards_of(NumericReward(), [row] * len(answers), [Answer(text) for text in answers])
    assert rewards == [1, 1, 1, 1, 0, 0, 0, 0, 0]
    assert NumericReward(relative_tolerance=0.1)(row, Answer("43")) == 1
    assert NumericReward().identity != NumericReward(0.1).identity


def test_numeric_needs_a_number_in_every_reference() -> None:
    rows = [asked("1 + 1?", "2"), asked("And you?", "Fine.", id="b"), asked("3 + 1?")]
    named = r"2 of 3 prompts .* number 1 \(b\): no number in the reference answer"
    with pytest.raises(Refused, match=named), opened_reward(NumericChoice(), rows):
        pass


def test_json_schema() -> None:
    own = {"type": "object", "required": ["city"]}
    rows = [asked("A city?", id="a", json_schema=json.dumps(own)), asked("A number?", id="b")]
    with opened_reward(JsonSchemaChoice(for_all={"type": "number"}), rows) as reward:
        assert isinstance(reward, JsonSchemaReward)
        assert [reward(rows[0], Answer(text)) for text in ('{"city": "Ulm"}', "{}", "Ulm")] == [1, 0, 0]
        assert [reward(rows[1], Answer(text)) for text in ("7", '"7"')] == [1, 0]


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([asked("A city?", id="a"), asked("b", id="b")], "2 of 2 .* no fact `json_schema`"),
        ([asked("A city?", id="a", json_schema='{"pattern": "x"}')], "`pattern`, which is not checked"),
        ([asked("A city?", id="a", json_schema="{"), asked("b", id="b", json_schema="{}")], "1 of 2 .* cannot be used"),
        ([asked("A city?", json_schema="{}")] * 2, "2 of 2 have the id ``"),
    ],
)
def test_schemas_that_cannot_be_used(rows: list[Conversation], named: str) -> None:
    with pytest.raises(Refused, match=named), opened_reward(JsonSchemaChoice(), rows):
        pass


def test_programs() -> None:
    """CodeRL's four rewards, from facts of the row."""
    row = asked("Double it.", id="double", function="double", tests="assert double(2) == 4")
    programs = ["def double(x):\n    return 2 * x", "def double(x):\n    return x", "def double(x):\n    return y", "def double(x:"]
    with opened_reward(ProgramChoice(), [row]) as reward:
        assert rewards_of(reward, [row] * 4, [Answer(f"```python\n{one}\n```") for one in programs]) == [1.0, -0.3, -0.6, -1.0]
    with pytest.raises(Refused, match="no fact `tests`"), opened_reward(ProgramChoice(), [asked("x", id="a", function="f")]):
        pass


def test_as_a_setting() -> None:
    config = resolve(GRPOConfig, parse_settings(["reward=json_schema", "reward.for_all={type: object, required: [city]}"]))
    assert config.reward == JsonSchemaChoice(for_all={"type": "object", "required": ["city"]})
    assert resolve(GRPOConfig, parse_settings(["reward.relative_tolerance=0.1"])).reward == NumericChoice(relative_tolerance=0.1)
    with pytest.raises(UsageError, match="no `reward` `numerik`"):
        resolve(GRPOConfig, parse_settings(["reward=numerik"]))


def test_the_command_takes_the_address_of_a_server() -> None:
    inputs = recipe_inputs(grpo)
    assert inputs["sampler"].protocol == "Completer" and inputs["sampler"].optional
    told = help_text(where("grpo"), grpo, inputs)
    assert "json_schema" in told and "judge:MODEL[+ADAPTER][@CONSTITUTION]" in " ".join(told.split())
