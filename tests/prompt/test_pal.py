"""Programs that are written by script and really run: who wins the vote, what is counted, and GSM8K's own questions."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mygpt.artifacts.dataset import Conversation
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.same_items import join
from mygpt.evaluate.tasks import ReadTaskConfig, read_task
from mygpt.guard.sandbox import Limits, Sandbox
from mygpt.infer.protocols import Answer, Identity, Sampling
from mygpt.prompt.pal import PALConfig, ProgramAided, as_number, asking, is_right, pal

GSM8K = Path("../shared/data/gsm8k_test.jsonl")


class Writes:
    """Gives out programs in turn, whatever is asked."""

    def __init__(self, *programs: str) -> None:
        self.programs, self.asked, self.sampling = programs, [], Sampling()
        self.asked: list[Conversation]

    @property
    def identity(self) -> Identity:
        return {"engine": "writes"}

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        self.asked, self.sampling = list(conversations), sampling
        return [Answer(self.programs[i % len(self.programs)]) for i in range(len(conversations))]


def returning(expression: str) -> str:
    return f"```python\ndef solution():\n    return {expression}\n```"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as one:
        yield one


def test_the_vote_by_hand(sandbox: Sandbox) -> None:
    """Of eight programs: 0.1 + 0.2 and 0.3 agree once rounded, 7 came twice as well but later, four fail, each in its own way."""
    writes = Writes(
        returning("0.1 + 0.2"), returning("7"), returning("0.3"), returning("7.0"),
        returning("1 / 0"), returning("'many'"), "def solution(:", "I do not know.",
    )  # fmt: skip
    solution = ProgramAided(writes, sandbox=sandbox, samples=8).solve(["How much?"], Sampling())[0]
    assert (solution.value, solution.agreement) == (0.3, 2 / 8)
    assert solution.program == "def solution():\n    return 0.1 + 0.2\n"
    assert solution.errors == {"ZeroDivisionError": 1, "NoNumber": 1, "SyntaxError": 2}
    assert (writes.sampling.temperature, len(writes.asked)) == (0.7, 8)
    assert solution.text == "0.3"


def test_a_program_that_defines_nothing_has_no_answer(sandbox: Sandbox) -> None:
    """The published code would answer with the solution of the question before."""
    aided = ProgramAided(Writes(returning("41"), "```python\nx = 1\n```"), sandbox=sandbox)
    first, second = aided.solve(["a?", "b?"], Sampling())
    assert (first.value, second.value, second.errors) == (41, None, {"NameError": 1})
    answers = aided.complete([asking("a?"), asking("b?")], Sampling())
    assert [(a.text, a.finish_reason) for a in answers] == [("41", "stop"), ("", "abstained")]


def test_what_runs_is_contained(sandbox: Sandbox, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    programs = (f"def solution():\n    open({str(planted)!r}, 'w')\n", "def solution():\n    while True: pass\n")
    aided = ProgramAided(Writes(*programs), sandbox=sandbox, samples=2, limits=Limits(seconds=0.3))
    assert aided.solve(["?"], Sampling())[0].errors == {"FileNotFoundError": 1, "time": 1}
    assert not planted.exists()


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3), (3.0, 3), (2.5, 2.5), (1 / 3, 0.333333), (True, None), ("3", None), (None, None), (float("nan"), None), (float("inf"), None),
     ([3], None), (-0.0000001, 0), (10**30, 10**30), (10**2_000, None), (1e200, None)],
)  # fmt: skip
def test_numbers(value: Any, number: Any) -> None:
    assert as_number(value, 6) == number


def test_right_within_a_thousandth() -> None:
    assert is_right(18, "18") and is_right(1000, "1,000") and is_right(0.3333, "1/3")
    assert not is_right(18.002, "18") and not is_right(None, "18")


def test_the_prompt_shows_three_programs_that_run(sandbox: Sandbox) -> None:
    messages = asking("What now?").messages
    assert [m.role for m in messages] == ["system", *("user", "assistant") * 3, "user"]
    shown = [m.content for m in messages if m.role == "assistant"]
    solutions = ProgramAided(Writes(*shown), sandbox=sandbox).solve(["a", "b", "c"], Sampling())
    assert [s.value for s in solutions] == [36, 26, 180]


@pytest.mark.skipif(not GSM8K.exists(), reason=f"{GSM8K} is not there")
def test_gsm8k_with_right_and_wrong_programs(run: Run) -> None:
    """Programs that return the right number for every question but each third: two thirds are right, and the rows say how."""
    rows = [json.loads(line) for line in GSM8K.read_text(encoding="utf-8").splitlines()]
    right = {row["question"]: row["answer"].rpartition("#### ")[2].replace(",", "") for row in rows}
    task = read_task(ReadTaskConfig(builtin="gsm8k", max_items=30), source=GSM8K, run=run)
    wrong = {item.question for item in task.items[::3]}

    class Knows(Writes):
        def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
            asked = [c.messages[-1].content for c in conversations]
            return [Answer(returning(f"{right[q]} + {int(q in wrong)}")) for q in asked]

    made = pal(PALConfig(), task=task, completer=Knows(), run=run)
    assert sum(row["numeric"] for row in made.rows) == 20
    assert made.manifest.facts["errors"] == {}
    assert made.rows[1]["program"].startswith("def solution():")
    joined = join([made], ["pal"])[0]
    assert (joined.task, joined.primary, len(joined.item_ids)) == ("gsm8k", "numeric", 30)
    again = pal(PALConfig(samples=2), task=task, completer=Writes("no program here at all"), run=run)
    assert again.manifest.facts["errors"] == {"SyntaxError": 60}
    assert again.manifest.facts["unparsed"] == 30


def test_only_tasks_with_numbers(run: Run) -> None:
    task = read_task(ReadTaskConfig(builtin="arithmetic_choice"), run=run)
    with pytest.raises(UsageError, match="does not ask for numbers"):
        pal(PALConfig(), task=task, completer=Writes(""), run=run)
