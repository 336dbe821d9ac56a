"""The whole job with a teacher on this machine and a tiny base: who asked, training anew, an interruption, and what the gate refuses."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.deployment import Deployment
from mygpt.artifacts.lineage import why
from mygpt.artifacts.model import Model
from mygpt.artifacts.store import Store
from tests.pipelines.conftest import TINY, TaughtUp, mygpt
from tests.pipelines.teacher import make_tiny_base


@pytest.fixture
def home(taught_up: TaughtUp, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(taught_up.home, tmp_path / "home")


def test_the_teacher_writes_the_questions_and_is_recorded(taught_up: TaughtUp) -> None:
    dataset = Dataset.open(Store(taught_up.home), "ferry")
    asker = dataset.manifest.tools["completer"]
    assert (asker["engine"], asker["address"], asker["name"]) == ("remote", taught_up.teacher.address, "patient-teacher")
    rows = [row for split in ("train", "knowledge", "generalisation") for row in dataset.split(split)]
    assert len(rows) == sum(taught_up.result[f"pairs_{split}"] for split in ("train", "knowledge", "generalisation")) >= 30
    assert {row.question: row.answer for row in rows}.items() <= taught_up.teacher.fact_of.items()
    told = f"Up to {taught_up.result['passages']} passages of your documents go to {taught_up.teacher.address}."
    assert told in [e["text"] for e in events(taught_up.home) if e["event"] == "warning"]


def test_what_is_served_is_named_beside_what_was_trained(taught_up: TaughtUp) -> None:
    deployment, made = Deployment.open(Store(taught_up.home), "ferry"), taught_up.result
    assert deployment.adapter is not None
    assert (made["model"], made["tuned"], made["base"]) == (deployment.adapter.id, deployment.adapter.id, deployment.model.id)


def test_training_every_weight_leaves_the_base_what_it_was(taught_up: TaughtUp, home: Path) -> None:
    code, made = taught_up.up(home, "--set", "sft.method=full")
    assert code == 0, made
    served = Deployment.open(Store(home), "ferry").model
    assert served.manifest.facts["method"] == "full"
    assert made["model"] == made["tuned"] == served.id != made["base"]
    assert made["base"] == taught_up.result["base"] == Model.open(Store(home), "tiny").id


def test_retune_trains_on_the_documents_as_they_are_now(taught_up: TaughtUp, home: Path, tmp_path: Path) -> None:
    note = tmp_path / "walrus.md"
    note.write_text("# Walrus desk\n\nThe Walrus desk opens at 06:15 and is led by Ottoline Farrow. It lends bicycles to members.\n")
    code, added = mygpt("add", str(note), "--home", str(home))
    assert code == 0, added
    code, offered = taught_up.up(home)
    assert (code, offered["tuned"]) == (0, taught_up.result["tuned"])
    assert offered["retune_seconds"] == added["retune_seconds"] > 0

    code, again = taught_up.up(home, "--retune")
    assert code == 0, again
    store = Store(home)
    after = Deployment.open(store, "ferry")
    assert again["tuned"] not in (None, taught_up.result["tuned"])
    assert again["retune_seconds"] is None
    assert after.trained_on is not None and after.trained_on.num_documents == 5
    assert after.dataset is not None and after.dataset.manifest.inputs["corpus"][0].digest == after.trained_on.digest
    assert any(str(note) in line for line in why(store, after.manifest).lines())

    before = store.find(taught_up.result["deployment"])
    assert before.digest in store.tags("deployment", "ferry").values(), "still under its version's tag"
    old = Deployment(before, store)
    store.verify(before)
    assert old.adapter is not None and old.adapter.id == taught_up.result["tuned"]
    store.verify(old.adapter.manifest)
    assert old.trained_on is not None and old.trained_on.num_documents == 4


def test_the_base_is_served_when_the_gate_says_stop(taught_up: TaughtUp, home: Path, tmp_path: Path) -> None:
    """A bar that a model of random weights is far below, on passages enough to decide."""
    bar = tmp_path / "policy.yaml"
    bar.write_text("rules:\n  - task: held_out_questions\n    at_least: 0.5\n")
    more = ("ingest.passage_words=20", "questions.knowledge_pairs=300", "questions.generalisation_pairs=200")
    code, made = taught_up.up(home, "--retune", "--set", f"policy={bar}", *(f"--set={setting}" for setting in more))
    assert code == 0, made
    assert made["gate"] == {"outcome": "do not ship", "headline": "Do not ship: 1 of 1 rules failed (held_out_questions)."}
    deployment = Deployment.open(Store(home), "ferry")
    assert (deployment.adapter, deployment.model.id) == (None, made["base"])
    assert deployment.index is not None and deployment.index.id == made["index"]
    assert made["model"] == made["base"]
    assert made["tuned"] not in (None, taught_up.result["tuned"])
    assert deployment.tuned is not None and deployment.tuned.id == made["tuned"], "kept, and to be found"
    code, answer = mygpt("chat", "--home", str(home), "-q", "What is the boiling point of tungsten hexafluoride?")
    assert (code, answer["abstained"]) == (0, True), "with retrieval: a closed book cannot abstain"


def test_interrupted_and_run_again_it_goes_on(taught_up: TaughtUp, tmp_path: Path) -> None:
    """A real Ctrl-C in the middle of training; then the same command: nothing is asked again, and training goes on at its checkpoint."""
    home = tmp_path / "home"
    make_tiny_base(home, tmp_path / "tiny")
    command = [sys.executable, "-m", "mygpt", "up", str(taught_up.folder), "--home", str(home), *TINY, "--json"]
    command += ["--teacher", taught_up.teacher.address, "--set", "sft.epochs=20", "--set", "sft.checkpoint_seconds=0"]
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would this child
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, handler)
    try:
        until(lambda: len(training_steps(home)) >= 5 or first.poll() is not None)
        first.send_signal(signal.SIGINT)
        out, err = first.communicate(timeout=60)
    finally:
        first.kill()
    assert first.returncode == 130, err
    assert json.loads(out)["error"] == "Interrupted."
    assert [e["error"] for e in events(home) if e["event"] == "run_failed"] == ["KeyboardInterrupt"]
    store, asked, last_step = Store(home), taught_up.teacher.num_requests, training_steps(home)[-1]
    assert store.lookup("dataset/ferry") is not None
    assert (store.lookup("adapter/ferry"), store.lookup("deployment/ferry")) == (None, None)

    for file in home.glob("runs/*/events.jsonl"):
        file.unlink()  # what is left was told by the second run
    second = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert second.returncode == 0, second.stderr
    assert taught_up.teacher.num_requests == asked
    assert {"read", "index", "question"} <= {e["step"] for e in events(home) if e["event"] == "step_cached"}
    assert training_steps(home)[0] in (last_step, last_step + 1), "the step under way is done again, those before are not"
    facts = store.find("adapter/ferry").facts
    assert [step for step, _ in facts["curve"]] == list(range(1, training_steps(home)[-1] + 1))
    assert json.loads(second.stdout)["tuned"] == store.find("adapter/ferry").id


def events(home: Path) -> list[dict[str, Any]]:
    lines = [line for file in home.glob("runs/*/events.jsonl") for line in file.read_text(encoding="utf-8").split("\n")[:-1]]
    return [json.loads(line) for line in lines]


def training_steps(home: Path) -> list[int]:
    return sorted(e["training_step"] for e in events(home) if e["event"] == "log" and "training_step" in e)


def until(holds: Callable[[], bool], *, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
