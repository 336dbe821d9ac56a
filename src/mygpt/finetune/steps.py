"""The steps of a training run: where it stands, what it did, checkpoints and resume. The recipe shows forward, loss and update.

for step in steps:
    for rows in step.micro_batches:
        loss = ...
        loss.backward()
        step.add(loss)
    step.update()
"""

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

from mygpt.core.digest import digest_value
from mygpt.core.errors import MygptError
from mygpt.core.run import Run
from mygpt.finetune.tuning import TuningConfig
from mygpt.training.batches import Plan
from mygpt.training.checkpoint import Checkpoints
from mygpt.training.optimizers import MasterAdamW
from mygpt.training.schedules import warmup_cosine


class Step:
    def __init__(self, micro_batches: list[list[int]], optimizer: MasterAdamW, learning_rate: float, max_grad_norm: float):
        self.micro_batches = micro_batches  # numbers of examples
        self.rows = [row for micro in micro_batches for row in micro]
        self.loss, self.grad_norm = 0.0, math.nan
        self.learning_rate = learning_rate
        self._optimizer, self._max_grad_norm = optimizer, max_grad_norm

    def add(self, loss: Any) -> None:
        """The part of one micro-batch, already divided by what the whole step trains on."""
        self.loss += float(loss.detach())

    def update(self) -> None:
        self.grad_norm = self._optimizer.update(learning_rate=self.learning_rate, max_grad_norm=self._max_grad_norm)


class Steps:
    """Goes on from the newest checkpoint that fits. `facts` holds the curve, tokens and speed once it has run through."""

    def __init__(self, plan: Plan, lengths: Sequence[int], *, module: Any, config: TuningConfig, learning_rate: float, run: Run):
        self._plan, self._lengths, self._config, self._rate, self._run = plan, lengths, config, learning_rate, run
        trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self.num_trainable = sum(p.numel() for _, p in trainable)
        self._optimizer = MasterAdamW(trainable, learning_rate=learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.999))
        self._checkpoints = Checkpoints(run.home, run.making.request, every_seconds=config.checkpoint_seconds)
        self._work = digest_value([plan, [name for name, _ in trainable], str(module.dtype)])  # what a checkpoint must fit
        self._curve: list[list[float]] = []
        self._seconds, self._tokens = 0.0, 0

    @property
    def facts(self) -> dict[str, Any]:
        speed = round(self._tokens / max(self._seconds, 1e-9), 1)
        return {"trainable": self.num_trainable, "curve": self._curve, "tokens": self._tokens, "tokens_per_second": speed}

    def clear(self) -> None:
        """No checkpoint is needed any more."""
        self._checkpoints.clear()

    def __iter__(self) -> Iterator[Step]:
        config, run, num_steps = self._config, self._run, len(self._plan)
        first = self._resumed()
        tokens_of = [sum(self._lengths[i] for micro in step for i in micro) for step in self._plan]
        self._tokens = sum(tokens_of[:first])
        progress = run.progress(sum(tokens_of), "tokens")
        progress.resume_at(self._tokens)
        run.count(tokens=self._tokens)
        for number in range(first, num_steps):
            started = time.perf_counter()
            factor = warmup_cosine(number, num_steps=num_steps, warmup_share=config.warmup_share, final_share=config.final_share)
            step = Step(self._plan[number], self._optimizer, self._rate * factor, config.max_grad_norm)
            yield step
            self._seconds += time.perf_counter() - started
            self._tokens += tokens_of[number]
            self._curve.append([number + 1, round(step.loss, 4)])
            run.count(tokens=tokens_of[number])
            run.log(training_step=number + 1, loss=step.loss, grad_norm=step.grad_norm, learning_rate=step.learning_rate)
            progress.advance(tokens_of[number], loss=round(step.loss, 3))
            if not (math.isfinite(step.loss) and math.isfinite(step.grad_norm)):
                self._checkpoints.clear()
                raise diverged(number + 1, step, self._rate)
            if self._checkpoints.due() and number + 1 < num_steps:
                log = {"curve": self._curve, "seconds": self._seconds, "work": self._work}
                self._checkpoints.save(number + 1, self._optimizer.state(), log)

    def _resumed(self) -> int:
        """The step to begin with."""
        saved = self._checkpoints.latest(run=self._run)
        if saved is None:
            return 0
        first, tensors, log = saved
        if log.get("work") != self._work:
            self._run.warn("A checkpoint of this training was written by another version or machine: training begins anew.")
            return 0
        self._optimizer.restore(tensors)
        self._curve, self._seconds = log["curve"], log["seconds"]
        self._run.making.started -= self._seconds  # what was spent before the kill is part of the cost
        self._run.note(f"Going on from step {first} of {len(self._plan)}.")
        return first


def diverged(number: int, step: Step, learning_rate: float) -> MygptError:
    return MygptError(
        f"The loss became {step.loss:.4g} and its gradient {step.grad_norm:.4g} at step {number} with learning rate {learning_rate:g}.",
        fix=f"Use a smaller `learning_rate`, for example {learning_rate / 5:g}.",
    )
