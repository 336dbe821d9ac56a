"""Rewards by hand: CodeRL's four, for programs that really run."""

from collections.abc import Iterator

import pytest

from mygpt.align.unit_test_reward import UnitTestReward, UnitTests
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.errors import UsageError
from mygpt.guard.sandbox import Limits, Sandbox
from mygpt.infer.protocols import Answer

ASKED = Conversation((Message("user", "Write double(x)."),), "double")
PROGRAMS = {
    "```python\ndef double(x):\n    return 2 * x\n```": 1.0,
    "def double(x):\n    return x\n": -0.3,
    "def double(x):\n    return y\n": -0.6,
    "def double(x):\n    while True: pass\n": -0.6,
    "def double(x) return 2 * x": -1.0,
    "import os\ndef double(x):\n    os._exit(0)\n": -0.6,  # leaving early is no way to pass
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as one:
        yield one


def test_rewards_of_code_rl(sandbox: Sandbox) -> None:
    """Le et al. 2022, equation 3."""
    tests = {"double": UnitTests("double", "assert double(2) == 4\nassert double('a') == base * 2\n", context="base = 'a'")}
    reward = UnitTestReward(tests, sandbox=sandbox, limits=Limits(seconds=0.5))
    answers = [Answer(program) for program in PROGRAMS]
    assert reward.each([ASKED] * len(answers), answers) == list(PROGRAMS.values())
    assert reward(ASKED, answers[0]) == 1.0
    assert reward.identity["rewards"] == {"passed": 1.0, "failed": -0.3, "runtime error": -0.6, "compile error": -1.0}


def test_rewards_of_ones_own(sandbox: Sandbox) -> None:
    tests = {"double": UnitTests("double", "assert double(2) == 4")}
    plain = {"passed": 1.0, "failed": 0.0, "runtime error": 0.0, "compile error": 0.0}
    assert UnitTestReward(tests, sandbox=sandbox, rewards=plain)(ASKED, Answer("def double(x): return 0")) == 0.0
    with pytest.raises(UsageError, match="no reward for `runtime error`"):
        UnitTestReward(tests, sandbox=sandbox, rewards={"passed": 1.0, "failed": 0.0})
    with pytest.raises(UsageError, match="no unit tests for the conversation `other`"):
        UnitTestReward(tests, sandbox=sandbox)(Conversation(ASKED.messages, "other"), Answer("x"))
