"""A reward for answers that are programs: their unit tests say it, in the sandbox.

    reward = UnitTestReward({conversation.id: UnitTests("double", "assert double(2) == 4")}, sandbox=sandbox)
    reward(conversation, answer)      1.0, -0.3, -0.6 or -1.0

Source    Le et al. 2022, "CodeRL", arXiv:2207.01780, section 3.2.2, equation 3: 1 for passing, -0.3 where a test fails, -0.6 for a runtime
          error, -1 for a compile error
We differ program and tests run apart (`guard/unit_tests`): a policy that learns to leave early, or to equal everything, gains nothing by it
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from typing import Any

from mygpt.artifacts.dataset import Conversation
from mygpt.core.digest import digest_value
from mygpt.core.errors import UsageError
from mygpt.guard.programs import program_in
from mygpt.guard.sandbox import Limits, Sandbox
from mygpt.guard.unit_tests import COMPILE_ERROR, FAILED, PASSED, RUNTIME_ERROR, passes
from mygpt.infer.protocols import Answer, Identity

CODE_RL = {PASSED: 1.0, FAILED: -0.3, RUNTIME_ERROR: -0.6, COMPILE_ERROR: -1.0}


@dataclass(frozen=True)
class UnitTests:
    """`tests` call `function` and raise where it is wrong; `context` is trusted code that they need."""

    function: str
    tests: str
    context: str = ""


class UnitTestReward:
    def __init__(
        self,
        tests: Mapping[str, UnitTests],
        *,
        sandbox: Sandbox,
        limits: Limits | None = None,
        rewards: Mapping[str, float] = CODE_RL,
    ):
        """`tests` by the id of the conversation that asks for the program."""
        missing = [outcome for outcome in CODE_RL if outcome not in rewards]
        if missing:
            raise UsageError(f"There is no reward for `{missing[0]}`.", fix=f"Give one for each of: {', '.join(CODE_RL)}.")
        self._tests, self._sandbox, self._limits, self._rewards = dict(tests), sandbox, limits or Limits(), dict(rewards)

    @property
    def identity(self) -> Identity:
        tests = digest_value({key: vars(one) for key, one in self._tests.items()})
        settings: dict[str, Any] = {"limits": vars(self._limits), "rewards": self._rewards}
        return {"reward": "unit_tests", "tests": tests, **settings, "sandbox": self._sandbox.identity}

    def __call__(self, prompt: Conversation, answer: Answer) -> float:
        tests = self._tests.get(prompt.id)
        if tests is None:
            raise UsageError(f"There are no unit tests for the conversation `{prompt.id}`.", fix="Give them by the conversation's id.")
        verdict = passes(
            program_in(answer.text),
            tests.tests,
            function=tests.function,
            context=tests.context,
            limits=self._limits,
            sandbox=self._sandbox,
        )
        return self._rewards[verdict.outcome]

    def each(self, prompts: Sequence[Conversation], answers: Sequence[Answer]) -> list[float]:
        """As many at once as there are cores, in order."""
        with ThreadPoolExecutor(cpu_count() or 1) as pool:
            return list(pool.map(self, prompts, answers))
