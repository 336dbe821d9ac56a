"""PAL, program-aided answers: the model writes a program for the question, the sandbox computes it. Several programs vote.

    ProgramAided(completer, sandbox=sandbox, samples=8)     again a Completer: its answers are the numbers
    mygpt prompt pal --task gsm8k --completer MODEL         measured on a task whose answers are numbers

Source    Gao et al. 2022, "PAL: program-aided language models", arXiv:2211.10435, sections 3 and 4 (a function `solution()`, examples as
          code; majority over samples; right within 0.001)
We differ every program runs in a fresh process of the sandbox, where the paper's code runs them in its own and a program that defines
          nothing answers with the one before; values are rounded before they vote; every failure is counted by its class; the examples are
          three of our own, as turns of a conversation
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.artifacts.task import Task
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.core.spread import spread
from mygpt.guard.programs import program_in
from mygpt.guard.sandbox import Limits, Outcome, Sandbox
from mygpt.infer.protocols import Answer, Completer, Identity, Sampling
from mygpt.metrics.numeric_answer import last_number

_SYSTEM = "You write a Python function solution() that computes the answer to a question and returns it as a number."
_EXAMPLES = (
    (
        "A bakery sells 12 loaves on Monday and twice as many on Tuesday. How many loaves does it sell on both days?",
        "loaves_monday = 12\n    loaves_tuesday = 2 * loaves_monday\n    result = loaves_monday + loaves_tuesday",
    ),
    (
        "Rosa has 50 euros. She buys 3 books at 8 euros each. How much money is left?",
        "money = 50\n    price_of_a_book = 8\n    result = money - 3 * price_of_a_book",
    ),
    (
        "A train has 6 carriages with 40 seats each. A quarter of the seats is empty. How many people are seated?",
        "seats = 6 * 40\n    empty = seats / 4\n    result = seats - empty",
    ),
)
_PROGRAM = '```python\ndef solution():\n    """{question}"""\n    {body}\n    return result\n```'
_TOO_LARGE = 10**100
_CLOSE = 1e-3  # the paper's: an answer this near to the right one is right
NO_NUMBER = "NoNumber"  # a program that ran and returned something else


@dataclass(frozen=True)
class Solution:
    """What the programs of one question came to."""

    value: float | int | None  # the one most programs agree on; None where none returned a number
    program: str  # the first that returned it
    agreement: float  # of all programs, the share that returned it
    errors: Mapping[str, int]  # of the others, by class
    answers: tuple[Answer, ...]  # as they were written

    @property
    def text(self) -> str:
        return "" if self.value is None else f"{self.value:.12g}" if isinstance(self.value, float) else str(self.value)


class ProgramAided:
    def __init__(
        self,
        completer: Completer,
        *,
        sandbox: Sandbox,
        samples: int = 1,
        temperature: float = 0.7,
        decimals: int = 6,
        limits: Limits | None = None,
    ):
        """`temperature` where several are drawn (the paper's); one alone is drawn as the caller says. `decimals`: values that agree to
        so many are one."""
        self._completer, self._sandbox, self._limits = completer, sandbox, limits or Limits()
        self._samples, self._temperature, self._decimals = samples, temperature, decimals

    @property
    def identity(self) -> Identity:
        drawn = {"samples": self._samples, "temperature": self._temperature if self._samples > 1 else None, "decimals": self._decimals}
        ran = {"limits": vars(self._limits), "sandbox": self._sandbox.identity}
        return {"wrapper": "pal", **drawn, **ran, "completer": self._completer.identity}

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        """The numbers, as text; "" where no program returned one."""
        return [
            Answer(
                solution.text,
                "stop" if solution.value is not None else "abstained",
                prompt_tokens=max(answer.prompt_tokens for answer in solution.answers),
            )
            for solution in self.solve([conversation.messages[-1].content for conversation in conversations], sampling)
        ]

    def solve(self, questions: Sequence[str], sampling: Sampling) -> list[Solution]:
        if self._samples > 1:
            sampling = Sampling(**{**vars(sampling), "temperature": sampling.temperature or self._temperature})
        asked = [asking(question) for question in questions for _ in range(self._samples)]
        answers = self._completer.complete(asked, sampling)
        with ThreadPoolExecutor(cpu_count() or 1) as pool:
            outcomes = list(pool.map(self._computed, answers))
        per_question = range(0, len(answers), self._samples)
        return [
            voted(answers[i : i + self._samples], outcomes[i : i + self._samples], self._decimals) for i in per_question
        ]

    def _computed(self, answer: Answer) -> Outcome:
        return self._sandbox.run(f"{program_in(answer.text)}\nsolution()", limits=self._limits)


def asking(question: str) -> Conversation:
    turns = [Message("system", _SYSTEM)]
    for shown, body in _EXAMPLES:
        turns += [Message("user", shown), Message("assistant", _PROGRAM.format(question=shown, body=body))]
    return Conversation((*turns, Message("user", question)))


def voted(answers: Sequence[Answer], outcomes: Sequence[Outcome], decimals: int) -> Solution:
    """The rounded value that most programs returned; of equals, the one that came first."""
    values = [as_number(outcome.value, decimals) for outcome in outcomes]
    votes = Counter(value for value in values if value is not None)
    errors = Counter(
        outcome.failure.type or outcome.failure.kind if outcome.failure else NO_NUMBER
        for outcome, value in zip(outcomes, values, strict=True)
        if value is None
    )
    if not votes:
        return Solution(None, program_in(answers[0].text), 0.0, dict(errors), tuple(answers))
    value, count = votes.most_common(1)[0]
    return Solution(value, program_in(answers[values.index(value)].text), count / len(answers), dict(errors), tuple(answers))


def as_number(value: Any, decimals: int) -> float | int | None:
    """Rounded, a whole number as an integer; None for what is no number of this world (and a truth value is none)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _TOO_LARGE:
        return None
    rounded = round(value, decimals)
    return int(rounded) if rounded == int(rounded) else rounded


class PALConfig(Config):
    samples: PositiveInt = 1  # programs for each question
    temperature: Annotated[float, Field(gt=0)] = 0.7  # where there are several
    max_tokens: PositiveInt = 320
    seconds: PositiveFloat = 10.0  # for each program to run
    decimals: int = 6  # to which values must agree
    max_items: PositiveInt | None = None  # at even distances


@recipe
def pal(config: PALConfig, *, task: Task, completer: Completer, run: Run) -> Predictions:
    """Measured on a task whose answers are numbers; comparable with the harness's predictions on the same items."""
    if task.settings.answer != "number" or task.form != "generate":
        what = f"The task `{task.settings.name}` does not ask for numbers."
        raise UsageError(what, fix="Take one that does (`gsm8k`), or a task of your own with `answer: number`.")
    items = spread(task.items, config.max_items)
    limits = Limits(seconds=config.seconds)
    with Sandbox() as sandbox:
        solver = ProgramAided(
            completer,
            sandbox=sandbox,
            samples=config.samples,
            temperature=config.temperature,
            decimals=config.decimals,
            limits=limits,
        )
        sampling = Sampling(max_tokens=config.max_tokens, seed=run.seed_for("programs") >> 31 if config.samples > 1 else 0)
        solutions = solver.solve([item.question for item in items], sampling)
        identity = solver.identity
    rows = [
        {
            "item_id": item.id,
            "task": task.settings.name,
            "version": task.version,
            "form": task.form,
            "question": item.question,
            "reference": " | ".join(item.references),
            "answer": solution.text,
            "numeric": float(any(is_right(solution.value, reference) for reference in item.references)),
            "parsed": solution.value is not None,
            "agreement": solution.agreement,
            "program": solution.program,
            "errors": ", ".join(f"{name} {count}" for name, count in sorted(solution.errors.items())),
            "finish_reason": None,
            "cluster": item.cluster,
        }
        for item, solution in zip(items, solutions, strict=True)
    ]
    errors: Counter[str] = Counter()
    for solution in solutions:
        errors.update(solution.errors)
    facts = {
        "task": task.settings.name,
        "version": task.version,
        "form": task.form,
        "primary": "numeric",
        "chance": task.settings.chance,
        "task_content": task.manifest.content,
        "items": len(rows),
        "metrics": ["numeric"],
        "higher_is_better": {"numeric": True},
        "model": identity,
        "programs": len(rows) * config.samples,
        "errors": dict(errors.most_common()),
        "unparsed": sum(not row["parsed"] for row in rows),
    }
    if failed := sum(errors.values()):
        commonest = ", ".join(f"{name} {count}" for name, count in errors.most_common(3))
        run.warn(f"{failed} of {facts['programs']} programs returned no number ({commonest}); a question without any scores 0.")
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)


def is_right(value: float | int | None, reference: str) -> bool:
    right = last_number(reference)
    return value is not None and right is not None and abs(value - float(right.value)) < _CLOSE
