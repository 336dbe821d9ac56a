"""A program against its tests in two sandboxes: right ones pass, wrong ones fail, and those that cheat fail too."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mygpt.guard.sandbox import Limits, Sandbox
from mygpt.guard.unit_tests import passes

HUMANEVAL = Path("../shared/data/HumanEval.jsonl.gz")
TESTS = "assert double(2) == 4\nassert double([1]) == [1, 1]\n"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(preload=("typing",)) as one:
        yield one


def test_right_and_wrong(sandbox: Sandbox) -> None:
    assert passes("def double(x):\n    return x * 2\n", TESTS, function="double", sandbox=sandbox).passed
    wrong = passes("def double(x):\n    return x\n", TESTS, function="double", sandbox=sandbox)
    assert (wrong.passed, wrong.outcome, wrong.reason) == (False, "failed", "AssertionError (line 3)")
    broken = passes("def double(x) return x", TESTS, function="double", sandbox=sandbox)
    assert broken.outcome == "compile error" and broken.reason.startswith("SyntaxError")
    missing = passes("def triple(x):\n    return x * 3\n", TESTS, function="double", sandbox=sandbox)
    assert (missing.outcome, missing.reason) == ("runtime error", "NameError: name 'double' is not defined (line 3)")
    slow = passes("def double(x):\n    while True: pass\n", TESTS, function="double", sandbox=sandbox, limits=Limits(seconds=0.3))
    assert slow.outcome == "runtime error" and slow.seconds < 2
    assert passes("def double(x):\n    return x * 2\n", TESTS, function="double").passed  # a sandbox of its own


def test_arguments_of_any_name(sandbox: Sandbox) -> None:
    assert passes("def f(name, self): return name + self", "assert f(name=1, self=2) == 3", function="f", sandbox=sandbox).passed


CHEATS = {
    "leave with exit code 0": "import os\ndef double(x):\n    os._exit(0)\n",
    "leave while it is read": "import sys\nsys.exit(0)\n",
    "an object that equals everything": "class A:\n    def __eq__(self, o):\n        return True\ndef double(x):\n    return A()\n",
    "a number that equals everything": "class A(int):\n    def __eq__(self, o):\n        return True\ndef double(x):\n    return A(7)\n",
    "no assertions": "import builtins\nbuiltins.AssertionError = ValueError\n__debug__ if True else 0\ndef double(x):\n    return None\n",
    "the verdict by hand": (
        "import os, struct\ndef double(x):\n    for n in range(9):\n"
        "        m = b'{\"id\":%d,\"value\":null}' % n\n        os.write(3, struct.pack('>I', len(m)) + m)\n"
    ),
    "the tests' own words": "import sys\ndef double(x):\n    print('passed')\n    sys.modules['__main__'].check = lambda f: None\n",
    "an exception that ends loops": "def double(x):\n    raise StopIteration\n",
}


@pytest.mark.parametrize("program", CHEATS.values(), ids=CHEATS)
def test_cheats_fail(program: str, sandbox: Sandbox) -> None:
    assert not passes(program, TESTS, function="double", sandbox=sandbox).passed


def test_an_exception_that_ends_a_loop_does_not_empty_the_test(sandbox: Sandbox) -> None:
    tests = "assert list(map(double, [])) == list(map(double, [1, 2]))\n"
    assert not passes("def double(x):\n    raise StopIteration\n", tests, function="double", sandbox=sandbox).passed


def test_exceptions_that_are_expected(sandbox: Sandbox) -> None:
    tests = "try:\n    double(None)\nexcept TypeError as e:\n    assert 'None' in str(e)\nelse:\n    raise AssertionError('no TypeError')\n"
    assert passes("def double(x):\n    raise TypeError(f'not {x}')\n", tests, function="double", sandbox=sandbox).passed
    assert not passes("def double(x):\n    return 1\n", tests, function="double", sandbox=sandbox).passed


@pytest.mark.skipif(not HUMANEVAL.exists(), reason=f"{HUMANEVAL} is not there")
def test_all_of_humaneval(sandbox: Sandbox) -> None:
    """Chen et al. 2021: the 164 reference solutions pass, and no function that returns None does."""
    with gzip.open(HUMANEVAL, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert len(rows) == 164

    def passed(row: dict[str, str], body: str) -> bool:
        tests = f"{row['test']}\ncheck({row['entry_point']})\n"
        return passes(row["prompt"] + body, tests, function=row["entry_point"], context=row["prompt"], sandbox=sandbox).passed

    assert [row["task_id"] for row in rows if not passed(row, row["canonical_solution"])] == []
    assert [row["task_id"] for row in rows if passed(row, "    return None\n")] == []
