"""What a benchmark keeps beside its figures (design, 6.7): hardware, versions, commit, seed and command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import record
from benchmarks.record import arguments, finish

ROOT = Path(__file__).parents[2]


def test_a_record_holds_what_it_takes_to_do_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--json", "--keep", "--size", "3"])
    monkeypatch.setattr(record, "commit", lambda: "0123456789ab")
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    parser = arguments("A trial.")
    parser.add_argument("--size")
    finish("trial", {"seconds": 1.5}, parser.parse_args(), seed=7)
    kept = json.loads((tmp_path / "trial.json").read_text(encoding="utf-8"))
    assert kept == json.loads(capsys.readouterr().out)
    assert (kept["benchmark"], kept["seconds"], kept["seed"], kept["commit"]) == ("trial", 1.5, 7, "0123456789ab")
    assert kept["command"] == "python -m benchmarks.trial --size 3"
    assert kept["machine"]["cores"] > 0 and kept["versions"]["python"]


def test_the_commit_is_that_of_this_checkout() -> None:
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        pytest.skip("this is no git checkout")
    found = record.commit()
    assert found is not None
    assert head.stdout.startswith(found.removesuffix("-dirty"))
