"""Does a program pass its tests? The program and the tests run in two sandboxes, so that the one cannot speak for the other.

A program that shares a process with its tests can pass them all: by overriding what they call, by leaving with exit code 0, by writing the
verdict itself. Here the tests see a stand-in: each call of the function goes, as plain values, to the process that holds the program, and
its plain result comes back. What decides runs where nothing of the program ever was.

Source    functional correctness: Chen et al. 2021, arXiv:2107.03374, section 2.1
We differ their harness runs program and tests in one process, and says so; arguments arrive as copies, so that tests of what a function
          does to its argument are no tests here
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mygpt.guard.sandbox import Failure, Limits, Outcome, Sandbox, one_or

_STAND_IN = "_the_program"
_COMPILE_ERRORS = ("SyntaxError", "IndentationError", "TabError")


PASSED, FAILED, RUNTIME_ERROR, COMPILE_ERROR = "passed", "failed", "runtime error", "compile error"


@dataclass(frozen=True)
class Verdict:
    outcome: str  # passed; failed (a test says so); runtime error (any other error, or out of time); compile error (of the program)
    reason: str = ""  # why not: the class of the error first
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return self.outcome == PASSED


class _Raised(Exception):
    """An exception of the program, on its way to the tests."""


def passes(
    program: str,
    tests: str,
    *,
    function: str,
    context: str = "",
    limits: Limits | None = None,
    sandbox: Sandbox | None = None,
) -> Verdict:
    """`tests`: code that calls `function` and raises where it is wrong. `context`: trusted code that it needs beside that, run before.

    `limits` are of the program and of the tests, each.
    """
    limits = limits or Limits()
    with one_or(sandbox) as used, used.session(limits) as held, used.session(limits) as judging:
        loaded = held.run(program)
        if loaded.failure:
            outcome = COMPILE_ERROR if loaded.failure.type in _COMPILE_ERRORS else RUNTIME_ERROR
            return Verdict(outcome, _reason(loaded.failure), loaded.seconds)
        code = f"{context}\n{function} = {_STAND_IN}\n{tests}\n"
        judged = judging.run(code, functions={_STAND_IN: _caller(held.call, function)})
        seconds = loaded.seconds + judged.seconds
        if judged.failure is None:
            return Verdict(PASSED, "", seconds)
        outcome = FAILED if judged.failure.type == "AssertionError" else RUNTIME_ERROR
        return Verdict(outcome, _reason(judged.failure), seconds)


def _caller(call: Callable[..., Outcome], function: str) -> Callable[..., Any]:
    def stand_in(*args: Any, **kwargs: Any) -> Any:
        made = call(function, *args, **kwargs)
        if made.failure is None:
            return made.value
        kind = type(made.failure.type or made.failure.kind, (_Raised,), {})  # the tests may expect an exception of this name
        raise kind(made.failure.message)

    return stand_in


def _reason(failure: Failure) -> str:
    return str(failure).splitlines()[0][:300] if str(failure).strip() else failure.kind
