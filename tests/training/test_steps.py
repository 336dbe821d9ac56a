"""The steps around a loop: the same to the bit after any stop, and an end that says what to do.

The site is the smallest model that has everything: a linear layer with dropout, so that torch's random state matters, on rows drawn from a
generator of the run.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.artifacts.manifest import Input
from mygpt.artifacts.recipe import Making
from mygpt.core.digest import digest_value
from mygpt.core.errors import MygptError, Refused, Stopped
from mygpt.core.run import Run
from mygpt.training import steps as module_under_test
from mygpt.training.flops import Flops
from mygpt.training.ledger import Ledger
from mygpt.training.machine import PeakMemory
from mygpt.training.optimizers import MasterAdamW
from mygpt.training.steps import Advice, Examples, Step, checkpoints_of, training_steps

PLAN = [[[0, 1], [2]], [[3], [4, 5]], [[1, 2, 3]], [[5], [0], [4]]]
LENGTHS = [3, 4, 5, 6, 7, 8]
LABELS = [1, 2, 1, 2, 1, 2]
ADVICE = Advice(diverged="Use a smaller `rate`.", out_of_memory="Halve `rows`.")


class Site:
    """One training of a linear layer; each `go` is a process of its own, as far as training can tell."""

    def __init__(self, home: Path):
        self.home = home
        self.runs: list[Run] = []
        self.events: list[dict[str, Any]] = []

    def go(
        self,
        *,
        settings: dict[str, Any] | None = None,
        data: str = "d" * 64,
        at_micro_batch: Callable[[Step], None] | None = None,
        loss_of: Callable[[Step, torch.Tensor], torch.Tensor] | None = None,
        on_log: Callable[[int], None] | None = None,
        every_seconds: float = 0.0,
        **asked: Any,
    ) -> dict[str, Any]:
        def listen(event: dict[str, Any]) -> None:
            self.events.append(event)
            if on_log and event["event"] == "log":
                on_log(event["training_step"])

        outer = Run(self.home, name="toy", listeners=(listen,), **asked)
        self.runs.append(outer)
        settings = {"rate": 0.1, **(settings or {})}
        inputs = {"dataset": [Input(kind="dataset", name="rows", digest=data)]}
        request = digest_value([settings, data])
        run = outer.within(Making("mygpt.toy:toy", settings, inputs, {}, 0, request))

        torch.manual_seed(7)
        layer = torch.nn.Sequential(torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
        optimizer = MasterAdamW(layer.named_parameters(), learning_rate=0.1, weight_decay=0.0, betas=(0.9, 0.99))
        draws = random.Random(3)
        self.ledger = Ledger(Flops(2.0, 4.0, 0.0), 1e9, PeakMemory(torch.device("cpu")), outer.usd_per_hour)
        known = Examples([f"row-{i}" for i in range(6)], LENGTHS, LABELS)
        self.checkpoints = checkpoints_of(run, every_seconds=every_seconds)
        with run.at_end, training_steps(
            PLAN,
            examples=known,
            optimizer=optimizer,
            checkpoints=self.checkpoints,
            ledger=self.ledger,
            run=run,
            advice=ADVICE,
            generators={"draws": draws},
        ) as steps:
            for step in steps:
                for rows in step.micro_batches:
                    if at_micro_batch:
                        at_micro_batch(step)
                    rows_BD = torch.tensor([[draws.random() + i for _ in range(8)] for i in rows])
                    loss = (layer(rows_BD) ** 2).sum() / step.num_trained
                    loss = loss_of(step, loss) if loss_of else loss
                    loss.backward()
                    step.add(loss, computed_tokens=len(rows) * max(LENGTHS[i] for i in rows))
                step.update(learning_rate=settings["rate"], max_grad_norm=1.0)
        counted = {k: v for k, v in self.ledger.state().items() if k != "seconds"}
        weights = {name: tensor.tolist() for name, tensor in optimizer.state().items()}
        chance = [draws.random(), torch.rand(1).item()]
        return {"weights": weights, "curve": steps.curve, "counted": counted, "chance": chance, "run": run}

    def said(self, kind: str) -> list[str]:
        return [event["text"] for event in self.events if event["event"] == kind]

    def kept(self) -> list[str]:
        return sorted(p.name for p in (self.home / "checkpoints").glob("*/*"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path / "home")
    yield one
    for run in one.runs:
        run.close()


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, Any]:
    return Site(tmp_path / "whole").go()


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Weights, moments, curve, counts and everything random, to the bit."""
    return json.dumps({**a, "run": 0}) == json.dumps({**b, "run": 0})


def terminate(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


# -- going on ----------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", [2, 3, 4])
def test_stopped_anywhere_and_resumed_is_uninterrupted(step: int, site: Site, whole: dict[str, Any]) -> None:
    """Killed before a step's checkpoint, and (SIGTERM) after a step: dropout and drawn rows come out as if nothing had been."""

    def kill(at: int) -> None:
        if at == step:
            raise Killed

    with pytest.raises(Killed):
        site.go(on_log=kill)
    assert site.kept() == [f"step-{step - 1}"]
    with pytest.raises(Stopped) as told:
        site.go(on_log=lambda at: terminate() if at == step else None)
    kept = f"The state after step {step} of 4 is" if step < 4 else "All 4 steps are"
    assert told.value.exit_code == 143 and told.value.what.startswith(f"Training was told to stop. {kept} kept in {site.home}")
    assert "same command" in told.value.fix and site.kept() == [f"step-{step}"]
    made = site.go()
    assert f"Going on from step {step} of 4." in site.said("note")
    assert same(made, whole)
    assert made["run"].counts["tokens"] == sum(LENGTHS[i] for s in PLAN for m in s for i in m)


def test_sigterm_between_micro_batches_leaves_the_step_untouched(site: Site, whole: dict[str, Any]) -> None:
    """The second of step 4's three: what was drawn for the first is drawn again."""
    with pytest.raises(Stopped, match="after step 3 of 4"):
        site.go(at_micro_batch=lambda step: terminate() if step.number == 4 and step.num_added == 1 else None, every_seconds=3600)
    assert same(site.go(), whole)


def test_sigterm_before_anything_was_done(site: Site, whole: dict[str, Any]) -> None:
    with pytest.raises(Stopped, match="No step was done before it"):
        site.go(at_micro_batch=terminate)
    assert site.kept() == []
    assert same(site.go(), whole)


def test_the_handler_is_there_only_while_training(site: Site) -> None:
    before = signal.getsignal(signal.SIGTERM)
    inside: list[Any] = []
    site.go(at_micro_batch=lambda step: inside.append(signal.getsignal(signal.SIGTERM)))
    assert before not in inside and signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(Killed):
        site.go(settings={"rate": 0.2}, on_log=raise_killed)
    assert signal.getsignal(signal.SIGTERM) is before


def raise_killed(_: Any) -> None:
    raise Killed


def test_a_second_sigterm_is_not_caught(site: Site) -> None:
    """Whoever asks twice does not want to wait: after the first, the handler of before is back."""
    seen: list[Any] = []

    def twice(step: Step) -> None:
        terminate()
        seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped):
        site.go(at_micro_batch=twice)
    assert seen == [before]


def test_in_another_thread_there_is_no_handler(site: Site, whole: dict[str, Any]) -> None:
    made: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: made.append(site.go()))
    thread.start()
    thread.join()
    assert same(made[0], whole)


@pytest.mark.parametrize(("forgotten", "words"), [("update", "did not update"), ("add", "did not add every micro-batch")])
def test_a_loop_that_forgets_is_a_fault_of_ours(forgotten: str, words: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Step, forgotten, lambda *args, **kwargs: None)
    with pytest.raises(AssertionError, match=words):
        site.go()


# -- other settings, other data -----------------------------------------------------------------------------------------------


@pytest.fixture
def unfinished(site: Site) -> Site:
    with pytest.raises(Killed):
        site.go(on_log=lambda step: raise_killed(step) if step == 3 else None)
    return site


def test_another_training_of_that_name_says_what_differs(unfinished: Site, whole: dict[str, Any]) -> None:
    """And begins anew; the unfinished one stays, and its own command still goes on from it."""
    unfinished.go(settings={"rate": 0.05})
    unfinished.checkpoints.clear()  # as a recipe does when it has published
    (warning,) = unfinished.said("warning")
    assert warning.startswith("The checkpoint of `toy` at step 2 (")
    assert warning.endswith("is of another training (rate was 0.1 there and is 0.05 here): training begins anew.")
    unfinished.go(data="e" * 64)
    unfinished.checkpoints.clear()
    assert "(dataset was dddddddddddd there and is eeeeeeeeeeee here)" in unfinished.said("warning")[1]
    assert same(unfinished.go(), whole)
    assert "Going on from step 2 of 4." in unfinished.said("note")


def test_going_on_was_asked_for(unfinished: Site, whole: dict[str, Any]) -> None:
    for changed, words in (({"settings": {"rate": 0.05}}, "rate was 0.1 there and is 0.05 here"), ({"data": "e" * 64}, "dataset was dddd")):
        with pytest.raises(Refused, match=words) as refused:
            unfinished.go(resume=True, **changed)
        assert refused.value.exit_code == 3 and "leave out `--resume`" in refused.value.fix
    assert same(unfinished.go(resume=True), whole)


def test_nothing_to_go_on_from(site: Site) -> None:
    with pytest.raises(Refused, match="There is no checkpoint of `toy` to go on from"):
        site.go(resume=True)


def test_other_work_under_the_same_request(unfinished: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_under_test, "digest_value", lambda value: "another version")
    with pytest.raises(Refused, match="another version or machine"):
        unfinished.go(resume=True)
    unfinished.go()
    assert ["another version or machine" in text for text in unfinished.said("warning")] == [True]


# -- not a number -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_none_names_its_micro_batch(value: float, site: Site) -> None:
    def poisoned(step: Step, loss: torch.Tensor) -> torch.Tensor:
        return loss * value if step.number == 3 or (step.number == 2 and step.num_added == 1) else loss

    with pytest.raises(MygptError) as error:
        site.go(loss_of=poisoned)
    assert error.value.what == f"The loss became {value:.4g} at step 2 of 4 with learning rate 0.1, on the examples row-4, row-5."
    assert error.value.fix.startswith("Use a smaller `rate`. Or look at these examples. The state after step 1 of 4 is kept in ")
    assert site.kept() == ["step-1", "stopped.json"]
    assert all(torch.isfinite(t).all() for t in site.checkpoints.latest(run=site.runs[-1])[1].values())  # type: ignore[index]


def test_a_gradient_that_is_none_moves_nothing(site: Site, whole: dict[str, Any]) -> None:
    """The slope of a root at 0: the loss is a number."""
    with pytest.raises(MygptError, match=r"The gradient became nan at step 3 of 4 .* row-1, row-2, row-3"):
        site.go(loss_of=lambda step, loss: loss + (loss * 0).sqrt() if step.number == 3 else loss, every_seconds=3600)
    assert site.kept() == ["step-2", "stopped.json"]
    shutil.os.remove(next((site.home / "checkpoints").glob("*/stopped.json")))
    assert same(site.go(), whole)  # what is kept is the state before that step, to the bit


def test_the_same_again_is_refused_and_another_rate_is_not(site: Site, whole: dict[str, Any]) -> None:
    poisoned = {"loss_of": lambda step, loss: loss * float("nan") if step.number == 2 else loss}
    with pytest.raises(MygptError):
        site.go(**poisoned)
    with pytest.raises(Refused, match=r"has failed before\. The loss became nan at step 2") as refused:
        site.go(**poisoned)
    assert "Use a smaller `rate`." in refused.value.fix and "`--fresh`" in refused.value.fix
    site.go(settings={"rate": 0.01})
    assert same(site.go(fresh=True), whole)  # the cause is gone: from the beginning
    assert site.said("note") == []


# -- memory and disk ------------------------------------------------------------------------------------------------------------


def test_out_of_memory_says_where_and_what_to_change(site: Site) -> None:
    """torch's own error, for a tensor of 140 TB."""

    def too_much(step: Step) -> None:
        if step.number == 2 and step.num_added == 1:
            torch.empty(2**45)

    with pytest.raises(MygptError, match="Out of memory at step 2 of 4, on a micro-batch of 2 examples of at most 8 tokens: ") as error:
        site.go(at_micro_batch=too_much)
    assert error.value.fix == ADVICE.out_of_memory
    assert f"{4 * 2**45}" in error.value.what.replace(",", "")  # bytes, in torch's own words
    assert site.kept() == ["step-1"]


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")])
def test_other_ways_to_say_it(error: Exception, site: Site) -> None:
    def fail(step: Step) -> None:
        raise error

    with pytest.raises(MygptError, match="Out of memory at step 1 of 4, on a micro-batch of 2 examples of at most 4 tokens") as told:
        site.go(at_micro_batch=fail)
    assert told.value.fix == ADVICE.out_of_memory and told.value.__cause__ is error
    assert ("2.00 GiB" in told.value.what) is ("2.00 GiB" in str(error))


def test_another_runtime_error_stays_what_it_is(site: Site) -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        site.go(at_micro_batch=lambda step: torch.zeros(2, 3) @ torch.zeros(2, 3))  # type: ignore[arg-type]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """64 kB of it, for checkpoints."""
    place = tmp_path / "home" / "checkpoints"
    place.mkdir(parents=True)
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("a small disk needs `mount` and root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_keeps_the_checkpoint_before_and_training_goes_on(small_disk: Path, site: Site, whole: dict[str, Any]) -> None:
    def fill(step: int) -> None:
        if step == 2:
            filler = open(small_disk / "filler", "wb", buffering=0)  # noqa: SIM115
            with filler, pytest.raises(OSError, match="No space left"):
                while True:
                    filler.write(b"x" * 1000)

    made = site.go(on_log=fill)
    (warning,) = site.said("warning")
    assert warning.startswith("The checkpoint after step 2 could not be written, the one before stays: The disk is full at ")
    assert [p.name for p in small_disk.glob("*/*")] == ["step-1"]
    assert same(made, whole)
    assert same(site.go(), whole)  # and it is whole
    assert "Going on from step 1 of 4." in site.said("note")


def test_told_to_stop_on_a_full_disk(small_disk: Path, site: Site) -> None:
    (small_disk / "filler").write_bytes(b"x" * 60_000)
    with pytest.raises(Stopped, match="The state after step 1 of 4 could not be written"):
        site.go(on_log=terminate)


# -- what is shown ----------------------------------------------------------------------------------------------------------------


def test_log_progress_and_cost(site: Site) -> None:
    site.go(usd_per_hour=3.6)
    logs = [e for e in site.events if e["event"] == "log"]
    assert [e["training_step"] for e in logs] == [1, 2, 3, 4] and all(e["grad_norm"] > 0 and e["learning_rate"] == 0.1 for e in logs)
    last = [e for e in site.events if e["event"] == "progress"][-1]
    assert (last["done"], last["total"], last["unit"], last["eta_seconds"]) == (66, 66, "tokens", 0)
    assert last["loss"] == round(logs[-1]["loss"], 3) and last["usd"] == pytest.approx(site.ledger.seconds * 1e-3, abs=2e-6)
