"""Supervised fine-tuning killed by SIGKILL and resumed is an uninterrupted one, to the byte, by every method.

Rows are packed where the method allows it; the set is rendered in parts and batches are read from a file, as always in `sft`. What the
command line says of SIGTERM: test_sft.py.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.store import Store
from mygpt.core.run import Run
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from tests.finetune import toys
from tests.finetune.test_sft_methods import METHODS, VIRTUAL, label

SMALL: dict[str, Any] = {"step_tokens": 160, "micro_batch_tokens": 256, "precision": "float32", "learning_rate": 5e-3}
REPOSITORY = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("MYGPT_TEST_SEED") or time.time_ns() % 1_000_000)  # another at every run of the tests


@pytest.fixture
def model(run: Run) -> Model:
    return toys.base(toys.BaseConfig(), run=run)


@pytest.fixture
def dataset(run: Run) -> Dataset:
    return toys.pairs(toys.PairsConfig(), run=run)


def payload(made: Adapter | Model) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(made.payload.iterdir())}


@pytest.fixture(scope="module")
def site() -> Iterator[Callable[..., str]]:
    places = os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])  # the same code as here
    environment = {**os.environ, "PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "tests.finetune.sft_site"]
    process = subprocess.Popen(command, text=True, env=environment, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout

    def order(home: Path, model: Model, dataset: Dataset, settings: dict[str, Any], **death: int) -> str:
        line = {"home": str(home), "model": model.digest, "dataset": dataset.digest, "settings": settings, **death}
        process.stdin.write(json.dumps(line) + "\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        return process.stdout.readline().strip()  # type: ignore[union-attr]

    yield order
    process.stdin.close()
    process.wait(timeout=20)


@pytest.mark.parametrize("method", [LoRA(rank=4, alpha=8), Full()], ids=lambda method: method.name)
def test_killed_and_resumed_is_uninterrupted(
    method: LoRA | Full, site: Callable[..., str], model: Model, dataset: Dataset, run: Run, tmp_path: Path
) -> None:
    """SIGKILL in the middle of steps and of writing checkpoints, and SIGTERM; each process goes on where the last one stood."""
    settings = {**SMALL, "method": method.model_dump(), "epochs": 4, "checkpoint_seconds": 0}
    kind: Any = Adapter if method.name == "lora" else Model
    shutil.copytree(run.home, tmp_path / "whole")
    shutil.copytree(run.home, tmp_path / "killed")
    assert site(tmp_path / "whole", model, dataset, settings) == "done"
    whole = kind.open(Store(tmp_path / "whole"), "tuned")
    num_steps = len(whole.manifest.facts["curve"])
    assert num_steps >= 8

    draw = random.Random(4 if method.name == "lora" else 0)
    checkpoints = tmp_path / "killed" / "checkpoints"
    reached = []
    for number in range(6):
        place = "term_at_step" if number == 4 else "die_at_step"
        death = {"die_at_event": draw.randint(3, 20)} if number % 2 else {place: max([1, *reached]) + 1}
        ended = site(tmp_path / "killed", model, dataset, settings, **death)
        assert ended == ("stopped" if number == 4 else "killed")
        reached.append(max([int(p.name.removeprefix("step-")) for p in checkpoints.glob("*/step-*")], default=0))
    assert reached == sorted(reached) and 0 < reached[-1] < num_steps, reached
    assert site(tmp_path / "killed", model, dataset, settings) == "done"

    resumed = kind.open(Store(tmp_path / "killed"), "tuned")
    assert payload(resumed) == payload(whole)
    assert resumed.digest == whole.digest
    same = {"curve", "tokens", "trainable", "base", "template"}
    assert {k: resumed.manifest.facts[k] for k in same} == {k: whole.manifest.facts[k] for k in same}
    assert resumed.manifest.cost["tokens"] == whole.manifest.cost["tokens"]
    assert not list(checkpoints.glob("*"))
    said = "".join(p.read_text() for p in sorted((tmp_path / "killed" / "runs").glob("*/events.jsonl")))
    assert said.count("Going on from step") >= 3
    assert "passed over" not in said  # none of them was damaged


@pytest.mark.parametrize("method", METHODS, ids=label)
def test_killed_at_any_step_and_resumed_is_uninterrupted(
    method: Any, site: Callable[..., str], model: Model, dataset: Dataset, run: Run, tmp_path: Path
) -> None:
    """SIGKILL in the middle of a step that is drawn from two epochs; another process goes on. Against a training in this process."""
    settings: dict[str, Any] = {**SMALL, "learning_rate": 1e-2, "epochs": 2, "checkpoint_seconds": 0}
    ordered = {**settings, "method": method.model_dump()}
    killed = tmp_path / "killed"
    shutil.copytree(run.home, killed)
    whole = sft(SFTConfig(**settings, method=method), model=model, dataset=dataset, run=run)
    facts = whole.manifest.facts
    num_steps = len(facts["curve"])
    assert num_steps >= 6
    step = random.Random(f"{SEED} {label(method)}").randint(2, num_steps)
    sys.stdout.write(f"Killed in step {step} of {num_steps}. The same again: MYGPT_TEST_SEED={SEED}\n")  # shown where the test fails
    assert site(killed, model, dataset, ordered, die_at_step=step) == "killed"
    assert [path.name for path in (killed / "checkpoints").glob("*/step-*")] == [f"step-{step - 1}"]
    assert site(killed, model, dataset, ordered) == "done"

    resumed = type(whole).open(Store(killed), "tuned")
    said = "".join(path.read_text() for path in (killed / "runs").glob("*/events.jsonl"))
    assert f"Going on from step {step - 1} of {num_steps}." in said and "examples were tokenised before: they are read from" in said
    assert payload(resumed) == payload(whole) and resumed.digest == whole.digest
    same = ("curve", "tokens", "trainable", "base", "template", "packed", "method")
    assert [resumed.manifest.facts[key] for key in same] == [facts[key] for key in same]
    assert facts["method"] == method.name and facts["base"] == model.digest and facts["packed"] is (method not in VIRTUAL)
    losses = [loss for _, loss in facts["curve"]]
    assert sum(losses[num_steps // 2 :]) < sum(losses[: num_steps // 2])  # the second epoch's, of the same pairs
    Store(run.home).verify(model.manifest)  # the base is what it was


def test_sigterm_while_it_is_saved_keeps_every_step(
    site: Callable[..., str], model: Model, dataset: Dataset, run: Run, tmp_path: Path
) -> None:
    """In a process of its own, in which no checkpoint was due before: the next one trains no step and publishes the same bytes."""
    settings = {**SMALL, "method": LoRA(rank=4, alpha=8).model_dump(), "checkpoint_seconds": 3600}
    for name in ("whole", "stopped"):
        shutil.copytree(run.home, tmp_path / name)
    assert site(tmp_path / "whole", model, dataset, settings) == "done"
    whole = Adapter.open(Store(tmp_path / "whole"), "tuned")
    num_steps = len(whole.manifest.facts["curve"])
    assert site(tmp_path / "stopped", model, dataset, settings, term_in_saving=1) == "stopped"
    kept = [p.name for p in (tmp_path / "stopped" / "checkpoints").glob("*/step-*")]
    assert kept == [f"step-{num_steps}"] and not list((tmp_path / "stopped").glob("artifacts/adapter/*"))
    assert site(tmp_path / "stopped", model, dataset, settings) == "done"
    resumed = Adapter.open(Store(tmp_path / "stopped"), "tuned")
    assert resumed.digest == whole.digest and resumed.manifest.facts["curve"] == whole.manifest.facts["curve"]
    *_, last = sorted((tmp_path / "stopped" / "runs").glob("*/events.jsonl"), key=lambda file: file.stat().st_mtime)
    assert f"Going on from step {num_steps} of {num_steps}." in last.read_text() and '"training_step"' not in last.read_text()
    assert not list((tmp_path / "stopped" / "checkpoints").glob("*"))
