"""The page on statistics: its examples run, and its figures are those of the benchmark, which meets what was asked of it."""

import doctest
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "evaluate" / "statistics.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / "statistics.json").read_text(encoding="utf-8"))


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def test_examples_run() -> None:
    examples = "\n".join(re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(examples, {}, "statistics", "statistics.md", 0)
    assert len(test.examples) >= 15
    said: list[str] = []
    assert doctest.DocTestRunner().run(test, out=said.append).failed == 0, "".join(said)


def test_the_table_is_that_of_the_benchmark(measured: dict[str, Any]) -> None:
    rows = [f"| {name} | {' | '.join(percent(cell['coverage']) for cell in row.values())} |" for name, row in measured["stated"].items()]
    assert "\n".join(["| scores | n = 30 | 60 | 200 |", "|---|---|---|---|", *rows]) in TEXT


def test_figures_in_prose_are_those_of_the_benchmark(measured: dict[str, Any]) -> None:
    gate, scipy = measured["gate"], measured["against_scipy"]["paired F1, nine tenths alike"]
    found = {side: [row["found"] for name, row in gate["power"].items() if name.startswith(side)] for side in ("better", "not inferior")}
    alone = [cell["coverage"] for cell in measured["compared"]["three answers a question, drawn one by one"].values()]
    claims = [p for name, row in gate["false_better"].items() if "mcnemar" in name for n, p in row.items() if int(n) >= 60]
    for sentence in (
        f'"better" comes in at most {percent(measured["false_better"])} of runs',
        f'passes as "not inferior" in at most {percent(measured["false_non_inferior"])}',
        f"a gain is found in {percent(min(found['better']))} of runs or more",
        f'"not inferior" in {percent(min(found["not inferior"]))}',
        f"a rule that should hold does in {percent(measured['gate_power'])} to",
        f"of equal models any `better_by` in {percent(measured['gate_rules']['equal models on three tasks, any better_by']['held'])}",
        f"{percent(scipy['scipy percentile'])} (percentile)",
        f"{percent(scipy['scipy BCa'])} (BCa)",
        f"at share 0.3 of 60 items is {percent(measured['exact_shares']['share 0.3']['60'])}",
        f'"95 %" means {percent(min(alone))} to {percent(max(alone))}',
        f"{percent(min(claims))} to {percent(max(claims))} of runs without difference",
    ):
        assert sentence in " ".join(TEXT.split()), sentence


def test_what_was_asked_of_the_intervals_and_the_gate_is_met(measured: dict[str, Any]) -> None:
    """At 60 items or more: coverage 94 to 97 % (a little more where few items differ), "better" 2.5 %, "not inferior" 5 %, each with three
    standard errors of 10,000 simulations."""
    assert measured["simulations"] == 10_000
    assert 0.94 <= measured["coverage"] == min(c["coverage"] for r in measured["stated"].values() for n, c in r.items() if int(n) >= 60)
    assert measured["coverage_highest"] <= 0.98
    assert len(measured["coverage_outside_94_to_97"]) == 2  # named on the page and in the README
    assert measured["gate_power"] >= 0.77 and measured["gate_false"] <= 3 * (0.025 * 0.975 / 2_000) ** 0.5
    assert measured["false_better"] <= 0.025 + 3 * (0.025 * 0.975 / 10_000) ** 0.5
    assert measured["false_non_inferior"] <= 0.05 + 3 * (0.05 * 0.95 / 10_000) ** 0.5
