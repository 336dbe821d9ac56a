"""How `benchmarks/unit_test_reward.py` spoils programs and counts what became of them, by hand."""

import ast
import json
import random
from pathlib import Path

import pytest

from benchmarks.record import RESULTS
from benchmarks.unit_test_reward import NO_COLON, Problem, misspelt, of_all, off_by_one, outcomes, rival, spoilt, swapped, unreturned

HEAD = '''def double(x):
    """ Twice x, at least 1.
    >>> double(2)
    4
    >>> double('a')
    'aa'
    """
'''
PROBLEM = Problem("h/0", HEAD, "    if x < 1:\n        return 1\n    return x + x\n", "double", "assert double(2) == 4\n")


def test_the_examples_of_a_docstring_are_tests() -> None:
    assert PROBLEM.examples == "assert repr(double(2)) == '4'\nassert repr(double('a')) == \"'aa'\"\n"
    assert Problem("h/1", "def f(x):\n", "    return x\n", "f", "").examples == ""


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("operator", ["if x < 1: return 1; return x - x"]),
        ("off by one", ["if x <= 1: return 1; return x + x", "if x < 1: return 2; return x + x", "if x < 2: return 1; return x + x"]),
        ("no return", ["if x < 1: return 1; return", "if x < 1: return; return x + x"]),
    ],
)
def test_one_place_is_changed_at_a_time(rule: str, expected: list[str]) -> None:
    made = [ast.parse(text).body[0].body[1:] for text in spoilt(PROBLEM, rule, places=9, draw=random.Random(0))]  # type: ignore[attr-defined]
    assert sorted("; ".join(" ".join(ast.unparse(one).split()) for one in body) for body in made) == sorted(expected)


def test_names_and_colons() -> None:
    names = spoilt(PROBLEM, "no name", places=9, draw=random.Random(0))
    assert len(names) == 3 and all(text.count("xq") == 1 for text in names)
    (broken,) = spoilt(PROBLEM, NO_COLON, places=9, draw=random.Random(0))
    assert broken == PROBLEM.program.replace("def double(x):\n", "def double(x)\n")
    assert len(spoilt(PROBLEM, "no name", places=2, draw=random.Random(0))) == 2


def test_what_a_rule_leaves_alone() -> None:
    """True is no whole number, a bare return has no value, and what is written is not read."""
    assert not off_by_one(ast.Constant(True)) and not unreturned(ast.Return()) and not misspelt(ast.Name("x", ast.Store()))
    assert not swapped(ast.BinOp(ast.Constant(1), ast.Mod(), ast.Constant(2)))


def test_counts() -> None:
    found = outcomes(["a", "a", "b", "b"], [1.0, -0.3, -0.6, -1.0])
    assert [found[name] for name in ("programs", "passed", "failed", "runtime error", "compile error")] == [4, 1, 1, 1, 1]
    assert found["lowered"]["estimate"] == 0.75
    assert of_all({"one": found, "other": {"programs": 3, "passed": 2}}) == [4, 7]


def test_all_tests_against_examples() -> None:
    """Lowered by all tests 3 of 4, by the examples 2; one program is wrong by the tests alone."""
    found = rival([("a", True, True), ("a", True, False), ("b", False, False), ("b", True, True)])
    assert (found["problems"], found["programs"], found["given_1_by_examples_alone"]) == (2, 4, 1)
    estimates = [found[name]["estimate"] for name in ("lowered_by_tests", "lowered_by_examples", "difference")]
    assert estimates == [0.75, 0.5, 0.25]


def test_the_figures_of_the_page_are_those_measured() -> None:
    record = json.loads((RESULTS / "unit_test_reward.json").read_text(encoding="utf-8"))
    page = " ".join((Path(__file__).parents[2] / "docs" / "align" / "unit_test_reward.md").read_text(encoding="utf-8").split())
    lowered, of = record["lowered_in_all"]
    assert f"Of {of:,} programs in which a rule changed one place of a reference solution, {lowered:,} are given less" in page
    assert record["reference_solutions_given_1"]["of"] == 164 and record["reference_solutions_given_1"]["estimate"] == 1.0
    for row in record["spoilt"].values():
        share = "{estimate:.1%} ({low:.1%} to {high:.1%})".format(**row["lowered"]).replace("%", "").replace(" (", " % (", 1)
        counts = " | ".join(str(row[name]) for name in ("passed", "failed", "runtime error", "compile error"))
        assert f"| {row['programs']} | {share} | {counts} |" in page
    few, seconds = record["examples"], record["seconds"]
    assert f"({few['problems']} functions that have some, {few['programs']} programs of the first three rules)" in page
    tests, examples = (few[name]["estimate"] for name in ("lowered_by_tests", "lowered_by_examples"))
    assert f"{examples:.1%}".replace("%", " %") + " are given less, where all tests lower " + f"{tests:.1%}".replace("%", " %") in page
    apart = "{estimate:.1f} points ({low:.1f} to {high:.1f})".format(**{key: 100 * value for key, value in few["difference"].items()})
    assert apart.replace("-", "−") in page and f"the examples {few['given_1_by_examples_alone']}." in page
    assert f"take {seconds['one_ms']} ms" in page and f"takes {seconds['plain_python_ms']}." in page
    assert f"{seconds['programs_a_second_together']:.0f} programs a second" in page
