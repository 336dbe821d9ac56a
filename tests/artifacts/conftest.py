"""A family of small artefacts, made by the recipes of toys.py."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mygpt.artifacts.store import Store
from mygpt.core.run import Run
from mygpt.infer.scripted import ScriptedCompleter


class NamesItsModel(ScriptedCompleter):
    """A completer whose identity names the model that answers, as the real engines do."""

    def __init__(self, model_digest: str):
        super().__init__(lambda conversation: "It says hello.")
        self.model_digest = model_digest

    @property
    def identity(self) -> dict[str, Any]:
        return {"engine": "scripted", "model": self.model_digest, "sampling": {"temperature": 0.0}}


@pytest.fixture(autouse=True)
def no_model_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user has downloaded does not play a part here."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.delenv("MYGPT_HOME", raising=False)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync guards against power cuts, which no test here makes; without it these tests take a fifth of the time."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("mygpt.toys", Path(__file__).with_name("toys.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mygpt.toys", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "one.txt").write_text("Hello, says the first.")
    (folder / "two.txt").write_text("Good day, says the second.")
    return folder


@pytest.fixture
def store(run: Run) -> Store:
    return Store(run.home)


@pytest.fixture
def new_run(run: Run) -> Iterator[Callable[..., Run]]:
    """Another run in the same home."""
    opened = []

    def new(**changes: Any) -> Run:
        opened.append(Run(run.home, **{"name": run.name, **changes}))
        return opened[-1]

    yield new
    for one in opened:
        one.close()


@pytest.fixture
def family(toys: ModuleType, documents: Path, run: Run) -> dict[str, Any]:
    """Each noun by its name, from documents to feedback."""
    model = toys.base(toys.BaseConfig(), run=run)
    corpus = toys.gather(toys.GatherConfig(), source=documents, run=run)
    dataset = toys.pairs(toys.PairsConfig(), corpus=corpus, completer=NamesItsModel(model.digest), run=run)
    adapter = toys.tune(toys.TuneConfig(), model=model, dataset=dataset, run=run)
    report = toys.measure(toys.MeasureConfig(), adapters=(adapter,), run=run)
    deployment = toys.deploy(toys.DeployConfig(), model=model, adapter=adapter, report=report, run=run)
    feedback = toys.remember(toys.RememberConfig(), deployment=deployment, run=run)
    return {
        "model": model,
        "corpus": corpus,
        "dataset": dataset,
        "adapter": adapter,
        "report": report,
        "deployment": deployment,
        "feedback": feedback,
    }
