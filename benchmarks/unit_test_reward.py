"""The unit-test reward on HumanEval: what the reference solutions are given, and what programs are given that a simple rule has spoilt.

    python -m benchmarks.unit_test_reward --json --keep          (about a minute on two cores)

Each rule changes one place of a reference solution; of its places at most `--places` a solution are drawn.

operator     + for -, * for //, == for !=, `and` for `or`, `in` for `not in`, and back
off by one   a whole number 1 greater; < for <=, > for >=, and back
no return    `return` without its value
no name      a name that is read has a letter more
no colon     the colon behind the function's head left out

lowered      programs with less than 1, of all: what is left is a change that no test sees, or one that changes nothing
examples     programs of the first three rules by the same reward, where the tests are only the examples in the docstring (`>>>`), for the
             functions whose reference solution these let pass: the rival, and what too few tests are worth
seconds      a reference solution with its tests: the reward one by one and on all cores, beside a fresh plain Python with no isolation
"""

import ast
import doctest
import gzip
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import arguments, finish, limits
from mygpt.align.unit_test_reward import CODE_RL, UnitTestReward, UnitTests
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.guard.sandbox import Limits, Sandbox
from mygpt.infer.protocols import Answer
from mygpt.metrics.bootstrap import bootstrap_mean, paired_bootstrap
from mygpt.metrics.wilson import wilson

_DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "HumanEval.jsonl.gz"
_PLACES, _SECONDS = 3, 2.0  # of one program: some spoilt ones never end
_PAIRED = ((ast.Add, ast.Sub), (ast.Mult, ast.FloorDiv), (ast.And, ast.Or), (ast.Eq, ast.NotEq), (ast.In, ast.NotIn))
_OPERATORS: Mapping[type, type] = {a: b for pair in _PAIRED for a, b in (pair, pair[::-1])}
_LIMITS: Mapping[type, type] = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}


@dataclass(frozen=True)
class Problem:
    id: str
    head: str  # up to and with the docstring
    body: str  # the reference solution
    function: str
    tests: str

    @property
    def program(self) -> str:
        return self.head + self.body

    @property
    def examples(self) -> str:
        """The docstring's examples as tests; "" where it has none that can be read."""
        defined = next(n for n in ast.parse(self.program).body if isinstance(n, ast.FunctionDef) and n.name == self.function)
        try:
            found = doctest.DocTestParser().get_examples(ast.get_docstring(defined) or "")
        except ValueError:  # one is not indented as the others are
            return ""
        one_line = [(e.source.strip(), e.want.strip()) for e in found if e.want and "\n" not in e.source.strip()]
        return "".join(f"assert repr({call}) == {want!r}\n" for call, want in one_line)


def problems(file: Path) -> list[Problem]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        Problem(r["task_id"], r["prompt"], r["canonical_solution"], r["entry_point"], f"{r['test']}\ncheck({r['entry_point']})\n")
        for r in rows
    ]


# -- spoilt programs ---------------------------------------------------------------------------------------------------------


def swapped(node: ast.AST) -> bool:
    """Each of these changes the node where it applies, and says whether it did."""
    if isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)) and type(node.op) in _OPERATORS:
        node.op = _OPERATORS[type(node.op)]()
        return True
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _OPERATORS:
        node.ops[0] = _OPERATORS[type(node.ops[0])]()
        return True
    return False


def off_by_one(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        node.value += 1
        return True
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _LIMITS:
        node.ops[0] = _LIMITS[type(node.ops[0])]()
        return True
    return False


def unreturned(node: ast.AST) -> bool:
    if isinstance(node, ast.Return) and node.value is not None:
        node.value = None
        return True
    return False


def misspelt(node: ast.AST) -> bool:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        node.id += "q"
        return True
    return False


RUNS: Mapping[str, Callable[[ast.AST], bool]] = {"operator": swapped, "off by one": off_by_one, "no return": unreturned}
RULES: Mapping[str, Callable[[ast.AST], bool]] = {**RUNS, "no name": misspelt}
NO_COLON = "no colon"


def spoilt(problem: Problem, rule: str, *, places: int, draw: random.Random) -> list[str]:
    """Programs that differ from the reference solution in one place of its body, of at most so many places."""
    if rule == NO_COLON:
        return [re.sub(rf"(def {problem.function}\(.*\).*):[ \t]*\n", r"\1\n", problem.program, count=1)]
    first_line = problem.head.count("\n") + 1
    nodes = list(ast.walk(ast.parse(problem.program)))
    found = [n for n, node in enumerate(nodes) if getattr(node, "lineno", 0) >= first_line and RULES[rule](node)]
    made = []
    for n in sorted(draw.sample(found, min(places, len(found)))):
        tree = ast.parse(problem.program)
        assert RULES[rule](list(ast.walk(tree))[n])
        made.append(ast.unparse(tree))
    return made


# -- what the reward says ----------------------------------------------------------------------------------------------------


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--data", type=Path, default=_DATA)
    parser.add_argument("--problems", type=int, default=164)
    parser.add_argument("--places", type=int, default=_PLACES, help="spoilt by one rule in one solution, at most")
    options = parser.parse_args()
    known = problems(options.data)[: options.problems]
    with Sandbox() as sandbox:
        figures = {"problems": len(known), "limit_seconds": _SECONDS, **measured(known, options.places, sandbox)}
    finish("unit_test_reward", figures, options)


def measured(known: Sequence[Problem], places: int, sandbox: Sandbox) -> dict[str, Any]:
    limit = Limits(seconds=_SECONDS)
    reward = UnitTestReward({p.id: UnitTests(p.function, p.tests, context=p.head) for p in known}, sandbox=sandbox, limits=limit)
    right = reward.each(*asked(known, [p.program for p in known]))
    again = reward.each(*asked(known, [ast.unparse(ast.parse(p.program)) for p in known]))
    assert again == right, "a program that was taken apart and put together again is another one"
    draw = random.Random(0)
    changed = {rule: [(p, text) for p in known for text in spoilt(p, rule, places=places, draw=draw)] for rule in (*RULES, NO_COLON)}
    values = {rule: given(reward, programs) for rule, programs in changed.items()}
    by_rule = {rule: outcomes([p.id for p, _ in changed[rule]], values[rule]) for rule in changed}
    return {
        "reference_solutions_given_1": {"of": len(right), **limits(wilson(sum(value == 1.0 for value in right), len(right)))},
        "spoilt": by_rule,
        "lowered_in_all": of_all(by_rule),
        "examples": by_examples(known, {rule: list(zip(changed[rule], values[rule], strict=True)) for rule in RUNS}, sandbox, limit),
        "seconds": seconds_of(reward, known),
    }


def by_examples(
    known: Sequence[Problem], seen: Mapping[str, Sequence[tuple[tuple[Problem, str], float]]], sandbox: Sandbox, limit: Limits
) -> dict[str, Any]:
    """`seen`: spoilt programs with the reward that all tests gave."""
    with_examples = [p for p in known if p.examples]
    tests = {p.id: UnitTests(p.function, p.examples, context=p.head) for p in with_examples}
    reward = UnitTestReward(tests, sandbox=sandbox, limits=limit)
    passed = given(reward, [(p, p.program) for p in with_examples])
    trusted = {p.id for p, value in zip(with_examples, passed, strict=True) if value == 1.0}
    kept = [(program, value) for rows in seen.values() for program, value in rows if program[0].id in trusted]
    found = given(reward, [program for program, _ in kept])
    both = [(p.id, value < 1.0, few < 1.0) for ((p, _), value), few in zip(kept, found, strict=True)]
    return {"problems_with_examples": len(with_examples), **rival(both)}


def given(reward: UnitTestReward, programs: Sequence[tuple[Problem, str]]) -> list[float]:
    return reward.each(*asked([p for p, _ in programs], [text for _, text in programs]))


def asked(known: Sequence[Problem], programs: Sequence[str]) -> tuple[list[Conversation], list[Answer]]:
    return [Conversation((Message("user", p.head),), p.id) for p in known], [Answer(text) for text in programs]


def outcomes(ids: Sequence[str], values: Sequence[float]) -> dict[str, Any]:
    """How many there are of each reward, and the share below 1; solutions are drawn whole, since a solution's tests see much or little."""
    named = {value: name for name, value in CODE_RL.items()}
    counts = Counter(named[value] for value in values)
    lowered = bootstrap_mean([float(value < 1.0) for value in values], clusters=ids)
    return {"programs": len(values), **{name: counts[name] for name in CODE_RL}, "lowered": limits(lowered)}


def of_all(by_rule: Mapping[str, Mapping[str, Any]]) -> list[int]:
    """[programs with less than 1, programs]"""
    return [sum(row["programs"] - row["passed"] for row in by_rule.values()), sum(row["programs"] for row in by_rule.values())]


def rival(both: Sequence[tuple[str, bool, bool]]) -> dict[str, Any]:
    """(problem, lowered by all tests, lowered by the docstring's examples) of each spoilt program."""
    ids = [problem for problem, _, _ in both]
    every, few = ([float(row[k]) for row in both] for k in (1, 2))
    missed = sum(a > b for a, b in zip(every, few, strict=True))
    return {
        "problems": len(set(ids)),  # whose reference solution the examples let pass, and that a rule could spoil
        "programs": len(ids),
        "lowered_by_tests": limits(bootstrap_mean(every, clusters=ids)),
        "lowered_by_examples": limits(bootstrap_mean(few, clusters=ids)),
        "difference": limits(paired_bootstrap(every, few, clusters=ids)),
        "given_1_by_examples_alone": missed,
    }


# -- how long it takes -------------------------------------------------------------------------------------------------------


def seconds_of(reward: UnitTestReward, known: Sequence[Problem]) -> dict[str, Any]:
    """Medians in milliseconds of one reference solution with its tests, and programs a second on all cores."""
    ours, plain = [], []
    for problem in known:
        prompts, answers = asked([problem], [problem.program])
        started = time.perf_counter()
        assert reward(prompts[0], answers[0]) <= 1.0
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-I", "-S", "-c", f"{problem.program}\n{problem.tests}"], capture_output=True)
        plain.append(time.perf_counter() - started)
        assert done.returncode == 0, done.stderr
    started = time.perf_counter()
    reward.each(*asked(known, [p.program for p in known]))
    together = time.perf_counter() - started
    return {
        "one_ms": round(1e3 * statistics.median(ours), 1),
        "plain_python_ms": round(1e3 * statistics.median(plain), 1),
        "programs_a_second_together": round(len(known) / together, 1),
        "at_once": os.cpu_count(),
    }


if __name__ == "__main__":
    main()
