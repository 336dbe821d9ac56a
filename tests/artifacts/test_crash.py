"""Killed at any point (SIGKILL), a home holds nothing that looks whole and is not, and the next process just goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mygpt.artifacts.gc import collect_garbage, verify_all
from mygpt.artifacts.store import Store

NUM_KILLS = 30


class Site:
    def __init__(self, home: Path, user: Path):
        self.store = Store(home)
        environment = {**os.environ, "HOME": str(user), "PYTHONDONTWRITEBYTECODE": "1"}
        script = str(Path(__file__).with_name("crash_site.py"))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, script, str(home)], text=True, env=environment, **pipes)  # type: ignore[call-overload]

    def order(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        return self.process.stdout.readline().strip()

    def ask(self, line: str) -> str:
        self.order(line)
        return self.answer()

    def check(self, damaged: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        """What the user could meet: folders, tags, the catalogue."""
        assert {id for id, _ in verify_all(self.store)} <= damaged
        for file in (self.store.home / "tags").glob("*/*/[!.]*"):
            assert file.name in self.store.tags(file.parent.parent.name, file.parent.name)
            found = self.store.lookup(f"{file.parent.parent.name}/{file.parent.name}:{file.name}")
            if found is not None and found.id not in damaged:
                self.store.verify(found)

    def leftovers(self) -> int:
        return sum(1 for _ in (self.store.home / "staging").glob("*"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path / "home", tmp_path / "user")
    yield one
    one.process.stdin.close()
    one.process.wait(timeout=10)


def test_killed_at_random_points(site: Site) -> None:
    delays = random.Random(0)
    hit_in_the_middle = 0
    for kill in range(NUM_KILLS):
        child = int(site.ask(f"loop {1000 * kill}"))
        time.sleep(delays.uniform(0.0, 0.12))
        os.kill(child, signal.SIGKILL)
        assert site.answer() == "killed"
        site.check()
        before = site.leftovers()
        hit_in_the_middle += before > 0
        removed = collect_garbage(site.store, dry_run=False)
        assert sum(id.startswith("staging/") for id, _, _ in removed) == before
        assert site.leftovers() == 0
        site.check()
    assert hit_in_the_middle >= 5, "the kills must hit publishing, or nothing is tested"
    assert site.ask("step 0 77") == "done"
    site.check()
    assert site.store.rebuild_catalogue() == len(list(site.store.manifests())) > 0
    newest = max(site.store.manifests(), key=lambda m: m.created)
    assert newest.config == {"number": 77}
    assert site.store.find("crash-2").digest == newest.digest  # 77 = 3 * 25 + 2


def test_killed_at_every_system_event_of_a_publish(site: Site) -> None:
    for event in range(1, 200):
        before = len(site.store.folders())
        outcome = site.ask(f"step {event} {event}")
        assert outcome in ("killed", "done")
        site.check()
        assert len(site.store.folders()) in (before, before + 1)
        if outcome == "done":
            break
    assert event > 20  # opens, mkdirs, renames and locks of one publish: all were met
    made = {m.config["number"] for m in site.store.manifests()}
    assert event in made and 1 not in made
    stopped_after_rename = sorted(made - {event})
    assert stopped_after_rename and stopped_after_rename[-1] == event - 1  # whole, though its process did not live to tag it
    assert site.store.tags("model", f"crash-{event % 3}")["latest"] == site.store.find(f"crash-{event % 3}").digest


@pytest.mark.parametrize("work", ["replace", "remove"])
def test_killed_at_every_system_event_of(work: str, site: Site) -> None:
    number = {"replace": 0, "remove": 1}[work]
    for event in range(1, 200):
        outcome = site.ask(f"{work} {event}")
        assert outcome in ("killed", "done")
        there = [m for m in site.store.manifests() if m.config["number"] == number]
        site.check(damaged={m.id for m in there} if work == "replace" else set())  # the damaged one may stand until its replacement does
        if outcome == "done":
            break
    assert event > 5
    assert verify_all(site.store) == []
    assert len(there) == (1 if work == "replace" else 0)
