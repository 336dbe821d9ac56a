"""The steps of a training, one at a time: a recipe shows its forward, its loss and its update, and all else happens around them.

    with training_steps(plan, examples=..., optimizer=optimizer, checkpoints=..., ledger=ledger, run=run, advice=...) as steps:
        for step in steps:
            for rows in step.micro_batches:
                batch = batch_of([examples[i] for i in rows], ...)
                loss = summed_cross_entropy(module, batch.ids_BT, batch.trained_BT) / step.num_trained
                loss.backward()
                step.add(loss, computed_tokens=batch.ids_BT.numel())
            step.update(learning_rate=..., max_grad_norm=...)

Where several updates belong together (a rollout that is learnt from more than once), `phase` is their number: checkpoints stand between
phases, and lengths, which nobody knows before a rollout, are filled into `examples` as it is made; `step.cut` then says which rows go
together. `step.skip()` leaves one out.

It goes on from a checkpoint to the same bits, logs, shows progress, writes checkpoints, shares the work among ranks, and ends well:
    SIGTERM               the micro-batch is finished, a checkpoint written; the same command goes on. After the last step, whose checkpoint
                          is always written, what measures and publishes is left at once
    no number             a loss or gradient that is none: no weight moves, the state before the step is kept, the examples are named
    out of memory         answered with what to change
    no room on the disk   the checkpoint before stays, said once, and training goes on
"""

import copy
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

import torch

from mygpt.artifacts.lineage import changes, named_inputs
from mygpt.artifacts.recipe import Making
from mygpt.core.digest import digest_value
from mygpt.core.errors import MygptError, Refused, Stopped
from mygpt.core.run import Run
from mygpt.training.batches import Plan
from mygpt.training.checkpoint import Checkpoints, random_state
from mygpt.training.distributed import share_of
from mygpt.training.ledger import Ledger
from mygpt.training.out_of_memory import out_of_memory_told

_NAMED = 8  # examples in a message


class Optimizer(Protocol):
    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]: ...
    def update(self, *, learning_rate: float, max_grad_norm: float) -> float: ...
    def state(self) -> dict[str, torch.Tensor]: ...
    def restore(self, tensors: dict[str, torch.Tensor]) -> None: ...


@dataclass(frozen=True)
class Examples:
    """What is known of each example before training begins, by its place in the plan; of rollouts, when they are made."""

    names: Sequence[str]  # for messages
    num_tokens: Sequence[int]
    num_trained: Sequence[int]  # labels


@dataclass(frozen=True)
class Advice:
    """What a recipe tells its user to change."""

    diverged: str
    out_of_memory: str


def checkpoints_of(run: Run, *, every_seconds: float) -> Checkpoints:
    """Of the recipe under way."""
    making: Making = run.making
    settings = {**making.config, "seed": making.seed}
    about = {"recipe": making.recipe, "name": run.name, "settings": settings, "inputs": named_inputs(making.inputs)}
    return Checkpoints(run.home, making.request, every_seconds=every_seconds, about=about)


@contextmanager
def training_steps(
    plan: Plan,
    *,
    examples: Examples,
    optimizer: Optimizer,
    checkpoints: Checkpoints,
    ledger: Ledger,
    run: Run,
    advice: Advice,
    generators: Mapping[str, Random] | None = None,
    memory: dict[str, Any] | None = None,
    phase: int = 1,
) -> Iterator["Steps"]:
    """`generators` are those that the loop draws from: with torch's own they are part of a checkpoint. So is `memory`, what else the loop
    carries from phase to phase (JSON values by name; on resuming it is filled in place). `phase`: updates between two checkpoints.

    Raises Stopped after SIGTERM, MygptError when training cannot go on, Refused when going on from a checkpoint was asked for
    (`run.resume`) and is not possible.
    """
    steps = Steps(plan, examples, optimizer, checkpoints, ledger, run, advice, dict(generators or {}), memory, phase)
    steps.resume()
    with ExitStack() as handlers:
        handlers.enter_context(_sigterm(steps))
        with out_of_memory_told(lambda: advice.out_of_memory, where=steps.place):
            yield steps
        run.at_end.push(handlers.pop_all())  # until the recipe has published what was learnt


class Step:
    """One update of the weights, and this rank's share of the work for it."""

    def __init__(self, steps: "Steps", number: int):
        ranks = steps.run.ranks
        self._steps = steps
        self.number = number  # from 1
        self.num_steps = len(steps.plan)
        self.rows = [i for micro in steps.plan[number - 1] for i in micro]  # of all ranks
        self.micro_batches = share_of(steps.plan[number - 1], rank=ranks.rank, count=ranks.count)
        self.num_trained = sum(steps.examples.num_trained[i] for i in self.rows)  # labels of all ranks
        self.loss = 0.0
        self.grad_norm = self.learning_rate = math.nan
        self.computed_tokens = 0
        self.broken = 0  # the first micro-batch, from 1, whose loss is not a number
        self._losses: list[torch.Tensor] = []  # of micro-batches; a GPU is not waited for until all are on their way
        self.is_updated = False

    def cut(self, micro_batches: Sequence[Sequence[int]]) -> None:
        """Which of the step's rows go together, now that their lengths are known."""
        assert not self.num_added and self._steps.run.ranks.count == 1
        assert sorted(i for micro in micro_batches for i in micro) == sorted(self.rows), "other rows than the step's"
        self.micro_batches = [list(micro) for micro in micro_batches]
        self.num_trained = sum(self._steps.examples.num_trained[i] for i in self.rows)

    def add(self, loss: torch.Tensor, *, computed_tokens: int) -> None:
        """One micro-batch went forwards and backwards: its part of the step's loss, and its size with padding."""
        self._losses.append(loss.detach())
        self.computed_tokens += computed_tokens
        self._steps.stop_between_micro_batches()

    def update(self, *, learning_rate: float, max_grad_norm: float) -> None:
        """Sum the gradients of all ranks, clip, move the weights; or raise when there is no number to move them by."""
        assert self.num_added == len(self.micro_batches), "the recipe did not add every micro-batch"
        self.learning_rate = learning_rate
        self._read_losses()
        self._steps.agree(self)
        if self._steps.run.ranks.count > 1:
            self._steps.run.ranks.sum_gradients(self._steps.optimizer.parameters.values())
        self.grad_norm = self._steps.optimizer.update(learning_rate=learning_rate, max_grad_norm=max_grad_norm)
        if not math.isfinite(self.grad_norm):
            raise self._steps.diverged(self, self.rows)
        self.is_updated = True

    def _read_losses(self) -> None:
        """Once a step, of all micro-batches together."""
        values = torch.stack(self._losses).tolist() if self._losses else []
        self.loss = sum(values, 0.0)
        self.broken = next((place for place, value in enumerate(values, start=1) if not math.isfinite(value)), 0)

    @property
    def num_added(self) -> int:
        """Micro-batches so far."""
        return len(self._losses)

    def skip(self) -> None:
        """Leave this update out: no weight moves, and nothing is counted."""
        assert not self.num_added
        self.rows, self.micro_batches, self.num_trained = [], [], 0
        self._steps.agree(self)
        self.is_updated = True


class Steps:
    """What stands between the steps. Recipes get it from `training_steps` and only iterate."""

    def __init__(
        self,
        plan: Plan,
        examples: Examples,
        optimizer: Optimizer,
        checkpoints: Checkpoints,
        ledger: Ledger,
        run: Run,
        advice: Advice,
        generators: dict[str, Random],
        memory: dict[str, Any] | None,
        phase: int,
    ):
        assert len(plan) % phase == 0, "a phase is cut short"
        self.plan, self.examples, self.optimizer, self.checkpoints = plan, examples, optimizer, checkpoints
        self.ledger, self.run, self.advice, self.generators = ledger, run, advice, generators
        self.memory, self.phase = {} if memory is None else memory, phase
        self.curve: list[tuple[int, float]] = []  # (step, loss)
        self.asked_to_stop: list[int] = []  # signals so far
        self.num_done = 0
        self._num_updated = 0  # with those of a phase that is not over
        self.are_over = False
        self._current: Step | None = None
        trained = {name: [list(p.shape), str(p.dtype)] for name, p in optimizer.parameters.items()}
        self._work = digest_value([plan, trained])  # what a checkpoint must fit
        self._remember()
        self._stops = self._saves = self._disk_was_full = False

    def __iter__(self) -> Iterator[Step]:
        rows = [i for step in self.plan for micro in step for i in micro]
        by_tokens = self.phase == 1 and all(self.examples.num_tokens[i] for i in rows)  # of answers that are yet to be sampled nobody knows
        total = sum(self.examples.num_tokens[i] for i in rows) if by_tokens else len(self.plan)
        progress = self.run.progress(total, "tokens" if by_tokens else "updates")
        progress.resume_at(self.ledger.real_tokens if by_tokens else self.num_done)
        self.run.count(tokens=self.ledger.real_tokens)
        for number in range(self.num_done + 1, len(self.plan) + 1):
            started = time.perf_counter()
            self._current = step = Step(self, number)
            yield step
            assert step.is_updated, "the recipe did not update"
            self._num_updated = number
            lengths = [self.examples.num_tokens[i] for i in step.rows]
            seconds = time.perf_counter() - started
            self.ledger.add(lengths, trained_tokens=step.num_trained, computed_tokens=step.computed_tokens, seconds=seconds)
            self.run.count(tokens=sum(lengths))
            if step.rows:
                self.curve.append((number, round(step.loss, 4)))
                self.run.log(training_step=number, loss=step.loss, grad_norm=step.grad_norm, learning_rate=step.learning_rate)
            cost = {} if self.ledger.usd is None else {"usd": self.ledger.usd}
            progress.advance(sum(lengths) if by_tokens else 1, loss=round(step.loss, 3), **cost)
            if number % self.phase == 0:
                self.num_done = number
                self._remember()
            if self._stops:
                raise self.stopped()
            if number == len(self.plan) or (self._saves and self.num_done == number):
                self._save()
        self._current, self.are_over = None, True
        if self.asked_to_stop and self.run.ranks.count == 1:  # since the last micro-batch
            raise self.stopped()

    def micro_batches(self) -> Iterator[list[int]]:
        """Of this rank, from the step on that comes next: for what is made ahead of them."""
        ranks = self.run.ranks
        for step in self.plan[self.num_done :]:
            yield from share_of(step, rank=ranks.rank, count=ranks.count)

    def agree(self, step: Step) -> None:
        """What all ranks must know of this step: its loss and size, whether to stop or save after it, and whose loss is not a number."""
        ranks = self.run.ranks
        broken = [step.broken if rank == ranks.rank else 0 for rank in range(ranks.count)]
        saves = ranks.rank == 0 and self.checkpoints.due()
        told = torch.tensor([step.loss, step.computed_tokens, bool(self.asked_to_stop), saves, *broken], dtype=torch.float64)
        if ranks.count > 1:
            ranks.sum(told)
        step.loss, computed, stops, saves, *broken = told.tolist()
        step.computed_tokens, self._stops, self._saves = int(computed), bool(stops), bool(saves)
        for rank, micro in enumerate(broken):
            if micro:
                raise self.diverged(step, share_of(self.plan[step.number - 1], rank=rank, count=ranks.count)[int(micro) - 1])

    # -- resuming -----------------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Go on from the newest checkpoint of this very training; say what differs where there is only one of another."""
        if (told := self.checkpoints.stopped()) is not None:
            if not self.run.fresh:
                fix = f"{self.advice.diverged} To begin anew all the same, add `--fresh` or remove {self.checkpoints.folder}."
                raise Refused(f"This training, with these settings and data, has failed before. {told}", fix=fix)
            self._clear()
        saved = self.checkpoints.latest(run=self.run)
        if saved is not None and saved[2].get("work") == self._work:
            self.num_done, tensors, log = saved
            self._num_updated = self.num_done
            self.optimizer.restore(tensors)
            self.ledger.restore(log["ledger"])
            self.curve = [(step, loss) for step, loss in log["curve"]]
            for name, (version, numbers, gauss) in log["generators"].items():
                self.generators[name].setstate((version, tuple(numbers), gauss))
            self.memory.clear()
            self.memory.update(log["memory"])
            self._remember()
            self.run.making.started -= self.ledger.seconds  # what was spent before is part of the cost
            self.run.note(f"Going on from step {self.num_done} of {len(self.plan)}.")
            return
        other = "A checkpoint of this training was written by another version or machine" if saved is not None else self._another()
        if self.run.resume:
            what = f"{other}." if other else f"There is no checkpoint of `{self.run.name}` to go on from."
            raise Refused(what, fix="Give the settings and data of then, or leave out `--resume` to begin anew.")
        if other:
            self.run.warn(f"{other}: training begins anew.")

    def _another(self) -> str:
        """What differs from the unfinished training of the same recipe and name that got furthest, if there is one."""
        own = self.checkpoints.about
        same = [found for found in self.checkpoints.others() if all(found[2].get(key) == own.get(key) for key in ("recipe", "name"))]
        if not own or not same:
            return ""
        folder, step, about = max(same, key=lambda found: found[1])
        found = [change for part in ("settings", "inputs") for change in changes(about.get(part, {}), own[part])]
        differences = "; ".join(f"{c.key} was {_short(c.a)} there and is {_short(c.b)} here" for c in found) or "made by other tools"
        return f"The checkpoint of `{self.run.name}` at step {step} ({folder}) is of another training ({differences})"

    # -- ending -------------------------------------------------------------------------------------------------------------

    def stop_between_micro_batches(self) -> None:
        """Several ranks stop together, after the step."""
        if self.asked_to_stop and self.run.ranks.count == 1:
            raise self.stopped()

    def diverged(self, step: Step, rows: Sequence[int]) -> MygptError:
        """The error to raise. The state before the step is kept, and marked: the same again would end the same way."""
        names = ", ".join(self.examples.names[i] for i in rows[:_NAMED]) + (f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else "")
        no_loss = bool(step.broken) or not math.isfinite(step.loss)
        broken = f"The loss became {step.loss:.4g}" if no_loss else f"The gradient became {step.grad_norm:.4g}"
        what = f"{broken} at step {step.number} of {step.num_steps} with learning rate {step.learning_rate:g}, on the examples {names}."
        kept = self._kept()
        if self.run.ranks.rank == 0:
            with suppress(MygptError):  # a full disk: what stopped the training is the error to show
                self.checkpoints.stop(what)
        return MygptError(what, fix=f"{self.advice.diverged} Or look at these examples. {kept}")

    def place(self) -> str:
        """Where training stands, of an error."""
        step = self._current
        if step is None or step.num_added == len(step.micro_batches):
            return ""
        rows = step.micro_batches[step.num_added]
        longest = max(self.examples.num_tokens[i] for i in rows)
        return f" at step {step.number} of {step.num_steps}, on a micro-batch of {len(rows)} examples of at most {longest} tokens"

    def stopped(self) -> Stopped:
        kept = f"All {len(self.plan)} steps are kept in {self.checkpoints.folder}." if self.are_over else self._kept()
        return Stopped(f"Training was told to stop. {kept}", fix="The same command goes on from there.")

    def _kept(self) -> str:
        """A checkpoint of the steps that are done, and what to say of it."""
        if self._num_updated % self.phase:
            return "Its rollout is made again from the state before it, where a checkpoint of that is there."
        if self.num_done == 0:
            return "No step was done before it."
        after = f"The state after step {self.num_done} of {len(self.plan)}"
        if self._save():
            return f"{after} is kept in {self.checkpoints.folder}."
        return f"{after} could not be written; an earlier one may be there."

    def _save(self) -> bool:
        """Of the steps that are done. A full disk is no reason to stop: the checkpoint before stays."""
        ranks = self.run.ranks
        states = [self._random_states]
        if ranks.count > 1:
            by_device = {device: ranks.gather(state) for device, state in self._random_states.items()}
            states = [{device: found[rank] for device, found in by_device.items()} for rank in range(ranks.count)]
        if ranks.rank:
            return True
        log = {"curve": self.curve, "ledger": self.ledger.state(), "work": self._work, "generators": self._generator_states}
        log |= {"memory": self._memory}
        try:
            self.checkpoints.save(self.num_done, self.optimizer.state(), log, random_states=states)
        except MygptError as error:
            self.checkpoints.postpone()
            if not self._disk_was_full:
                self.run.warn(f"The checkpoint after step {self.num_done} could not be written, the one before stays: {error}")
            self._disk_was_full = True
            return False
        return True

    def _remember(self) -> None:
        """What the next phase begins with: one that does not end well leaves no trace."""
        self._random_states = random_state()
        self._generator_states = {name: one.getstate() for name, one in self.generators.items()}
        self._memory = copy.deepcopy(self.memory)

    def _clear(self) -> None:
        if self.run.ranks.rank == 0:
            self.checkpoints.clear()
        self.run.ranks.wait()


@contextmanager
def _sigterm(steps: Steps) -> Iterator[None]:
    """The first is noted for the step under way, or ends what comes after the steps; the second ends the process as ever. Only a main
    thread may set handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL

    def heard(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, before)
        if steps.are_over:
            raise steps.stopped()
        steps.asked_to_stop.append(number)

    signal.signal(signal.SIGTERM, heard)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else f"{value}"
