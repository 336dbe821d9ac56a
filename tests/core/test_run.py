"""The event stream, progress, named seeds."""

import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mygpt.core.digest import digest_text
from mygpt.core.errors import MygptError
from mygpt.core.run import Run


def _events(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]


def test_events_reach_the_file_and_the_listeners(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    run = Run(tmp_path, name="test", listeners=(heard.append,))
    with run.step("train"):
        run.log(loss=2.5, tokens=512)
        run.note("half way")
        with run.step("save"):
            assert run.current_step == "save"
        run.warn("slow")
    run.close()
    assert _events(run) == heard
    told = [{k: v for k, v in e.items() if k not in ("time", "seconds")} for e in heard]
    assert told == [
        {"event": "step_started", "step": "train"},
        {"event": "log", "step": "train", "loss": 2.5, "tokens": 512},
        {"event": "note", "text": "half way"},
        {"event": "step_started", "step": "save"},
        {"event": "step_finished", "step": "save"},
        {"event": "warning", "text": "slow"},
        {"event": "step_finished", "step": "train"},
    ]
    assert all(abs(e["time"] - time.time()) < 60 for e in heard)
    assert run.folder.parent == tmp_path / "runs"


def test_a_run_says_when_it_begins_and_how_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    with Run(tmp_path, name="handbook", seed=7) as done:
        now[0] = 102.5
    told = [{k: v for k, v in e.items() if k != "time"} for e in _events(done)]
    assert told == [{"event": "run_started", "name": "handbook", "seed": 7}, {"event": "run_finished", "seconds": 2.5}]
    assert done._file.closed

    for error, words in (
        (MygptError("No space.", fix="Make some."), "No space."),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (ValueError("not 7"), "ValueError: not 7"),
    ):
        with pytest.raises(type(error)), Run(tmp_path, name="handbook") as failed, failed.step("train"):
            raise error
        assert [e["event"] for e in _events(failed)] == ["run_started", "step_started", "step_finished", "run_failed"]
        assert _events(failed)[-1]["error"] == words
        assert failed._file.closed


def test_what_stopped_a_run_is_told_where_the_disk_takes_no_record(tmp_path: Path) -> None:
    with pytest.raises(KeyError), Run(tmp_path, name="test") as run:
        run.listeners.append(_full_disk)
        raise KeyError


def _full_disk(event: dict[str, Any]) -> None:
    raise MygptError("The disk is full.", fix="Free some space.")


def test_a_step_that_fails_is_finished_all_the_same(run: Run) -> None:
    with pytest.raises(KeyError), run.step("train"):
        raise KeyError
    assert run.current_step == "" and run.seconds_by_step["train"] >= 0
    assert _events(run)[-1]["event"] == "step_finished"


def test_every_event_is_on_the_disk_at_once_and_valid_json(run: Run) -> None:
    run.log(loss=float("nan"), learning_rate=float("inf"), step_number=3)
    run.emit("log", folder=Path("/somewhere"))
    line, other = (run.folder / "events.jsonl").read_text().splitlines()
    assert '"loss": null, "learning_rate": null, "step_number": 3' in line  # JSON has no NaN
    assert json.loads(other)["folder"] == "/somewhere"


def test_lines_of_several_threads_do_not_mix(run: Run) -> None:
    def talk(number: int) -> None:
        for _ in range(50):
            run.note(f"{number} " * 200)

    threads = [threading.Thread(target=talk, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(e["text"] for e in _events(run)) == sorted(f"{n} " * 200 for n in range(4) for _ in range(50))


def test_a_recipe_counts_for_itself(run: Run) -> None:
    inner = run.within("making")
    inner.count(tokens=5)
    inner.count(tokens=7, steps=1)
    assert dict(inner.counts) == {"tokens": 12, "steps": 1} and dict(run.counts) == {}
    assert inner.making == "making" and run.making is None
    inner.note("same stream")
    assert _events(run)[-1]["text"] == "same stream"


class Second:
    rank, count = 1, 2

    def wait(self) -> None: ...


def test_of_several_ranks_the_first_writes(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    with Run(tmp_path, name="test", ranks=Second(), listeners=(seen.append,)) as second, second.step("train"):
        second.log(loss=1.0)
        assert second.within("making").ranks.rank == 1 and second.alone().ranks.count == 1
    assert seen == [] and not (tmp_path / "runs").exists()
    assert second.seed_for("order") == Run(tmp_path, name="test").seed_for("order")


def test_progress_says_how_far_how_fast_how_long(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 pages, one every 0.05 s: 20 a second; an event at most every 0.2 s, and the last one."""
    now = [1000.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    with run.step("read"):
        progress = run.progress(100, "pages")
        for _ in range(100):
            now[0] += 0.05
            progress.advance(1, skipped=2)
    events = [e for e in _events(run) if e["event"] == "progress"]
    assert {(e["step"], e["unit"], e["total"], e["skipped"]) for e in events} == {("read", "pages", 100, 2)}
    halfway = next(e for e in events if e["done"] >= 50)
    assert halfway["rate_per_second"] == pytest.approx(20)
    assert halfway["eta_seconds"] == pytest.approx((100 - halfway["done"]) / 20, abs=0.06)
    assert events[-1]["done"] == 100 and events[-1]["eta_seconds"] == 0
    assert 20 <= len(events) <= 27  # 5 s, at most five events a second, the first and the last


def test_progress_that_goes_past_its_total_still_ends(run: Run) -> None:
    progress = run.progress(10, "rows")
    progress.advance(4)
    progress.advance(8)
    assert [e["done"] for e in _events(run)] == [4, 12]


def test_progress_resumed_does_not_boast(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    progress = run.progress(100, "steps")
    progress.resume_at(90)
    now[0] = 2.0
    progress.advance(5)
    (event,) = _events(run)
    assert (event["done"], event["rate_per_second"], event["eta_seconds"]) == (95, 2.5, 2.0)


def test_seeds_are_named_streams(tmp_path: Path) -> None:
    run = Run(tmp_path, name="test", seed=7)
    assert run.seed_for("shuffle") == int(digest_text("7/shuffle")[:16], 16) >> 1 < 2**63
    assert run.seed_for("shuffle") != run.seed_for("dropout") != Run(tmp_path, name="test", seed=8).seed_for("dropout")
    assert run.random("shuffle").random() == run.random("shuffle").random()
    assert run.within(None).random("x").random() == run.random("x").random()


def test_a_full_disk_is_said_in_words(run: Run) -> None:
    run._file.close()
    run._file = open("/dev/full", "a", buffering=1)  # noqa: SIM115
    with pytest.raises(MygptError, match="The disk is full"):
        run.note("x" * 10_000)
    with contextlib.suppress(MygptError):  # this device cannot be synced either
        run.close()
    run.close()  # once is enough


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(MygptError, match="Not a directory"):
        Run(tmp_path / "home", name="test")
