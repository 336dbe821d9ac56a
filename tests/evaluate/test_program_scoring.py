"""HumanEval with completers whose answers are known: the reference solutions pass in every form, and pass@k is what the counts say."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mygpt.artifacts.dataset import Conversation
from mygpt.artifacts.model import Model
from mygpt.artifacts.task import Item, TaskSettings, check_task
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.harness import RunTaskConfig, run_task
from mygpt.evaluate.program_scoring import pass_at_k_of, whole_program
from mygpt.evaluate.tasks import ReadTaskConfig, read_task
from mygpt.infer.protocols import Answer, Identity, Sampling
from mygpt.infer.torch_engine import TorchEngine
from mygpt.metrics.pass_at_k import pass_at_k

HUMANEVAL = Path("../shared/data/HumanEval.jsonl.gz")
needs_humaneval = pytest.mark.skipif(not HUMANEVAL.exists(), reason=f"{HUMANEVAL} is not there")
PROMPT = 'from typing import List\n\ndef double(x: int) -> int:\n    """Twice x."""\n'


class Solves:
    """Gives each item its reference solution, in the form that `wrap` makes of it; every `wrong`-th draw returns nothing."""

    def __init__(self, wrap: str, *, wrong: int = 0) -> None:
        with gzip.open(HUMANEVAL, "rt", encoding="utf-8") as file:
            self.rows = [json.loads(line) for line in file]
        self.wrap, self.wrong = wrap, wrong

    @property
    def identity(self) -> Identity:
        return {"engine": "solves", "wrap": self.wrap}

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        made = []
        for number, one in enumerate(conversations):
            row = next(r for r in self.rows if r["prompt"].rstrip() in one.messages[-1].content)
            body = "    return None\n" if self.wrong and number % self.wrong == 0 else row["canonical_solution"]
            made.append(Answer(self.wrap.format(prompt=row["prompt"], body=body.rstrip("\n"))))
        return made


@needs_humaneval
@pytest.mark.parametrize(
    ("builtin", "wrap"),
    [
        ("humaneval", "\n{body}"),
        ("humaneval_chat", "Here:\n```python\n{prompt}{body}\n```\nDone."),
        ("humaneval_chat", "```\n{body}\n```"),
    ],
    ids=["continued", "the whole function", "the body alone"],
)
def test_the_reference_solutions_pass(builtin: str, wrap: str, run: Run) -> None:
    task = read_task(ReadTaskConfig(builtin=builtin, max_items=40), source=HUMANEVAL, run=run)
    made = run_task(RunTaskConfig(), task=task, completer=Solves(wrap), run=run)
    assert [row["item_id"] for row in made.rows if not row["passed"]] == []
    assert made.manifest.facts["pass_at_k"] == {"1": 1.0}
    assert made.manifest.facts["higher_is_better"] == {"passed": True}


@needs_humaneval
def test_pass_at_k_over_samples(run: Run) -> None:
    """Of five draws for each of eight items, every third of all forty is wrong: 14 of 40."""
    task = read_task(ReadTaskConfig(builtin="humaneval", max_items=8), source=HUMANEVAL, run=run)
    config = RunTaskConfig(samples=5, temperature=0.8)
    made = run_task(config, task=task, completer=Solves("\n{body}", wrong=3), run=run)
    assert sum(row["passed"] for row in made.rows) == 26
    assert {row["outcome"] for row in made.rows} <= {"passed", "failed", "runtime error"}
    right = [5 - sum((5 * item + draw) % 3 == 0 for draw in range(5)) for item in range(8)]
    assert made.manifest.facts["pass_at_k"] == {
        "1": pytest.approx(26 / 40),
        "5": pytest.approx(sum(pass_at_k(5, c, 5) for c in right) / 8),
    }
    assert made.rows[1]["item_id"].endswith("/1") and made.rows[1]["cluster"] == made.rows[0]["cluster"]


def test_pass_at_k_by_hand() -> None:
    """Two items, two draws: one passes once, the other never. pass@1 = (1/2 + 0) / 2; of five draws there are too few."""
    rows: list[dict[str, Any]] = [
        {"item_id": f"{item}/{draw}", "sampled_from": item, "passed": float(item == "a" and draw == 0)}
        for item in "ab"
        for draw in range(2)
    ]
    assert pass_at_k_of(rows) == {"1": 0.25}


def test_the_whole_program() -> None:
    continued = whole_program(PROMPT, "\n    return 2 * x", "double", is_continuation=True)
    assert continued == PROMPT.rstrip() + "\n    return 2 * x"
    body = whole_program(PROMPT, "return 2 * x", "double", is_continuation=False)
    assert body == PROMPT.rstrip() + "\n    return 2 * x\n"
    whole = whole_program(PROMPT, "```python\ndef double(x):\n    return 2 * x\n```", "double", is_continuation=False)
    assert whole == f"{PROMPT}\ndef double(x):\n    return 2 * x\n"


def test_an_item_without_tests_is_refused() -> None:
    settings = TaskSettings(name="own", version="1", form="generate", answer="program", primary="passed")
    items = [Item(str(n), "f", references=("x",)) for n in range(2)]
    with pytest.raises(UsageError, match="Item `0` of the task `own` has no unit tests"):
        check_task(items, settings)


@pytest.mark.slow
@needs_humaneval
def test_the_real_model_end_to_end(run: Run, smollm2: Model) -> None:
    """Twelve functions continued by SmolLM2-135M, whatever it solves: what it writes is run, and every verdict has its reason."""
    task = read_task(ReadTaskConfig(builtin="humaneval", max_items=12), source=HUMANEVAL, run=run)
    made = run_task(RunTaskConfig(), task=task, completer=TorchEngine(smollm2, run=run), run=run)
    assert len(made.rows) == 12
    assert all(row["program"].startswith(item.question.rstrip()) for row, item in zip(made.rows, task.items, strict=True))
    outcomes = [row["outcome"] for row in made.rows]
    assert set(outcomes) <= {"passed", "failed", "runtime error", "compile error"}
    assert sum(outcome != "compile error" for outcome in outcomes) >= 6  # it writes Python
    assert all(bool(row["reason"]) != bool(row["passed"]) for row in made.rows)
    assert made.manifest.facts["pass_at_k"]["1"] == pytest.approx(sum(row["passed"] for row in made.rows) / 12)
