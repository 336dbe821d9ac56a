"""`mygpt studio annotate`: started as a user starts it, rated over HTTP, ended with Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from mygpt.artifacts.ratings import Ratings
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.artifacts.store import Store
from mygpt.cli.main import main
from mygpt.core.config import Config
from mygpt.core.run import Run


class SaidConfig(Config):
    answers: tuple[str, ...]


@recipe
def said(config: SaidConfig, *, run: Run) -> Predictions:
    rows = [{"item_id": f"q{n}", "question": f"Question {n}?", "answer": a} for n, a in enumerate(config.answers)]
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts={})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, answers in (("base", ("one", "two")), ("tuned", ("eins", "zwei"))):
        run = Run(tmp_path, name=name)
        said(SaidConfig(answers=answers), run=run)
        run.close()
    return tmp_path


def test_rated_then_ctrl_c(home: Path) -> None:
    command = [sys.executable, "-m", "mygpt", "studio", "annotate", "base", "tuned", "--name", "trial", "--home", str(home)]
    with subprocess.Popen([*command, "--port", "0", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and process.stdout is not None
        try:
            invitation = process.stderr.readline()
            assert "rate 2 items" in invitation
            address = invitation.split()[1]
            told = _asked(f"{address}/api/task?rater=Ann")
            body = {"rater": "Ann", "item_id": told["item"]["id"], "shown": told["item"]["shown"], "choice": "ranking", "ranks": [2, 1]}
            _asked(f"{address}/api/ratings", {**body, "seconds": 1.0})
            os.kill(process.pid, signal.SIGINT)
            result = json.loads(process.stdout.read())
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
    assert (result["items"], result["systems"]) == (2, ["base", "tuned"])
    ratings = Ratings.open(Store(home), "trial")
    assert ratings.id == result["ratings"]
    (rating,) = ratings.rows
    texts = {a.system: a.text for a in rating.answers}
    assert rating.rater == "Ann" and texts in ({"base": "one", "tuned": "eins"}, {"base": "two", "tuned": "zwei"})


def test_a_system_twice_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["studio", "annotate", "base", "base", "--name", "trial", "--home", str(home), "--json"])
    assert ended.value.code == 2
    assert json.loads(capsys.readouterr().out)["error"] == "`base` stands for 2 sets of answers, and one is rated at a time."


def test_dry_run_says_what_it_would_do(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["studio", "annotate", "base", "A=tuned", "--name", "trial", "--home", str(home), "--dry-run"])
    assert ended.value.code == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan == {"name": "trial", "items": 2, "systems": ["base", "A"], "address": "http://127.0.0.1:8081"}


def _asked(address: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address, data, {"content-type": "application/json"}), timeout=20) as answer:
        return json.load(answer)
