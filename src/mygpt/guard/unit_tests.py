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


@dataclass(frozen=True)
class Verdict:
    passed: bool
    reason: str = ""  # why not: the class of the error first
    in_program: bool = False  # whether the program itself failed before any test could run
    seconds: float = 0.0


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
            return Verdict(False, _reason(loaded.failure), True, loaded.seconds)
        code = f"{context}\n{function} = {_STAND_IN}\n{tests}\n"
        judged = judging.run(code, functions={_STAND_IN: _caller(held.call, function)})
        seconds = loaded.seconds + judged.seconds
        return Verdict(judged.failure is None, _reason(judged.failure) if judged.failure else "", False, seconds)


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
