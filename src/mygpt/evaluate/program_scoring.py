"""Answers that are programs: their unit tests say whether they are right, and pass@k how often one of k is.

A raw continuation is the program's end, after the prompt. An answer in a chat is a program of its own where it defines the function, else
the function's body; what the prompt defines beside it (imports, helpers) is there either way.

Source: Chen et al. 2021, arXiv:2107.03374, section 2.1; their time limit of 3 s is kept. We differ: `guard/unit_tests`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mygpt.artifacts.task import FUNCTION, UNIT_TESTS, Item, TaskSettings
from mygpt.evaluate.scoring import Scored
from mygpt.guard.programs import program_in
from mygpt.guard.sandbox import Limits, Sandbox
from mygpt.guard.unit_tests import COMPILE_ERROR, passes
from mygpt.metrics.pass_at_k import mean_pass_at_k

PRELOADED = ("typing", "math", "collections", "itertools", "functools", "re", "hashlib")  # of what such programs import
_LIMITS = Limits(seconds=3.0)
_KS = (1, 5, 10, 25, 50, 100)


def scored_program(settings: TaskSettings, sandbox: Sandbox, item: Item, answer: str) -> Scored:
    function = item.facts[FUNCTION]
    program = whole_program(item.question, answer, function, is_continuation=not settings.chat)
    verdict = passes(program, item.facts[UNIT_TESTS], function=function, context=item.question, limits=_LIMITS, sandbox=sandbox)
    shown = {"outcome": verdict.outcome, "reason": verdict.reason, "program": program}
    parsed = bool(answer.strip()) and verdict.outcome != COMPILE_ERROR
    return Scored(answer, " | ".join(item.references), {"passed": float(verdict.passed)}, parsed, shown)


def whole_program(prompt: str, answer: str, function: str, *, is_continuation: bool) -> str:
    if is_continuation:
        return prompt.rstrip() + answer
    block = program_in(answer)
    if re.search(rf"^\s*(?:async\s+)?def\s+{re.escape(function)}\b", block, re.MULTILINE):
        return f"{prompt}\n{block}"  # the stub of the prompt is defined first, and then defined anew
    indented = block if block.startswith((" ", "\t")) else "".join(f"    {line}" for line in block.splitlines(keepends=True))
    return f"{prompt.rstrip()}\n{indented}"


def pass_at_k_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """By k, as far as there are samples: the mean over items, unbiased."""
    drawn: dict[str, list[float]] = {}
    for row in rows:
        drawn.setdefault(row.get("sampled_from") or row["item_id"], []).append(row["passed"])
    fewest = min(map(len, drawn.values()))
    counts, passed = [len(one) for one in drawn.values()], [int(sum(one)) for one in drawn.values()]
    return {str(k): mean_pass_at_k(counts, passed, k) for k in _KS if k <= fewest}
