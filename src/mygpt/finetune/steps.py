"""The steps of a training run: where it stands, what it did, checkpoints and resume. The recipe shows forward, loss and update.

for step in steps:
    for rows in step.micro_batches:
        loss = ... / step.num_trained
        loss.backward()
        step.add(loss)
    step.update(learning_rate=..., max_grad_norm=...)
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mygpt.core.digest import digest_value
from mygpt.core.errors import MygptError
from mygpt.core.run import Run
from mygpt.training.batches import Plan
from mygpt.training.checkpoint import Checkpoints
from mygpt.training.optimizers import MasterAdamW


@dataclass(frozen=True)
class Examples:
    """What is known of each example before training begins, by its place in the plan."""

    num_tokens: Sequence[int]
    num_trained: Sequence[int]  # labels


class Step:
    """One update of the weights."""

    def __init__(self, steps: "Steps", number: int):
        self._optimizer = steps.optimizer
        self.number, self.num_steps = number, len(steps.plan)  # from 1
        self.micro_batches = steps.plan[number - 1]
        self.rows = [i for micro in self.micro_batches for i in micro]
        self.num_trained = sum(steps.examples.num_trained[i] for i in self.rows)  # labels
        self.loss = 0.0
        self.grad_norm = self.learning_rate = math.nan

    def add(self, loss: Any) -> None:
        """One micro-batch went forwards and backwards: its part of the step's loss."""
        self.loss += float(loss.detach())

    def update(self, *, learning_rate: float, max_grad_norm: float) -> None:
        self.learning_rate = learning_rate
        self.grad_norm = self._optimizer.update(learning_rate=learning_rate, max_grad_norm=max_grad_norm)


class Steps:
    """Goes on from the newest checkpoint that fits."""

    def __init__(self, plan: Plan, *, examples: Examples, optimizer: MasterAdamW, checkpoints: Checkpoints, work: Any, run: Run):
        """`work` is what a checkpoint must fit, beside the plan."""
        self.plan, self.examples, self.optimizer, self.checkpoints, self.run = plan, examples, optimizer, checkpoints, run
        self.curve: list[list[float]] = []  # (step, loss)
        self.seconds, self.tokens = 0.0, 0
        self._work = digest_value([plan, work])

    def __iter__(self) -> Iterator[Step]:
        run, num_steps = self.run, len(self.plan)
        first = self._resumed()
        tokens_of = [sum(self.examples.num_tokens[i] for micro in step for i in micro) for step in self.plan]
        self.tokens = sum(tokens_of[:first])
        progress = run.progress(sum(tokens_of), "tokens")
        progress.resume_at(self.tokens)
        run.count(tokens=self.tokens)
        for number in range(first + 1, num_steps + 1):
            started = time.perf_counter()
            step = Step(self, number)
            yield step
            self.seconds += time.perf_counter() - started
            self.tokens += tokens_of[number - 1]
            self.curve.append([number, round(step.loss, 4)])
            run.count(tokens=tokens_of[number - 1])
            run.log(training_step=number, loss=step.loss, grad_norm=step.grad_norm, learning_rate=step.learning_rate)
            progress.advance(tokens_of[number - 1], loss=round(step.loss, 3))
            if not (math.isfinite(step.loss) and math.isfinite(step.grad_norm)):
                self.checkpoints.clear()
                raise diverged(step)
            if self.checkpoints.due() and number < num_steps:
                log = {"curve": self.curve, "seconds": self.seconds, "work": self._work}
                self.checkpoints.save(number, self.optimizer.state(), log)

    def _resumed(self) -> int:
        """How many steps are done."""
        saved = self.checkpoints.latest(run=self.run)
        if saved is None:
            return 0
        done, tensors, log = saved
        if log.get("work") != self._work:
            self.run.warn("A checkpoint of this training was written by another version or machine: training begins anew.")
            return 0
        self.optimizer.restore(tensors)
        self.curve, self.seconds = log["curve"], log["seconds"]
        self.run.making.started -= self.seconds  # what was spent before the kill is part of the cost
        self.run.note(f"Going on from step {done} of {len(self.plan)}.")
        return done


def diverged(step: Step) -> MygptError:
    rate = step.learning_rate
    return MygptError(
        f"The loss became {step.loss:.4g} and its gradient {step.grad_norm:.4g} at step {step.number} with learning rate {rate:g}.",
        fix=f"Use a smaller `learning_rate`, for example {rate / 5:g}.",
    )
