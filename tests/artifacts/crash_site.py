"""Run as its own process by test_crash.py: forks children that publish, and are killed.

    stdin  "loop N"     a child publishes without end, from number N on; its pid is printed; the test kills it
           "step K N"   a child publishes number N and kills itself at its K-th system event (open, mkdir, rename, remove, lock, ...)
           "replace K"  a damaged artefact is made again, killed at the K-th event
           "remove K"   an artefact is removed, killed at the K-th event
    stdout "killed" or "done" when the child has ended
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.store import Store
from mygpt.core.config import Config
from mygpt.core.run import Run

WATCHED = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "fcntl.flock", "sqlite3.connect", "shutil.rmtree")


class NumberConfig(Config):
    number: int


@recipe
def numbered(config: NumberConfig, *, run: Run) -> Model:
    def write(folder: Path) -> None:
        (folder / "shards").mkdir()
        for part in range(4):
            (folder / "shards" / f"model-{part}.safetensors").write_bytes(bytes([config.number % 256]) * 20_000)
        (folder / "config.json").write_text(f'{{"number": {config.number}}}')

    return publish(Model, run, write, name=f"crash-{config.number % 3}")


def kill_self_at(event: int) -> None:
    seen = 0

    def hook(name: str, arguments: object) -> None:
        nonlocal seen
        if name in WATCHED:
            seen += 1
            if seen == event:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def in_child(work: Callable[[], None], *, announce: bool = False) -> None:
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    if announce:
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
    _, status = os.waitpid(child, 0)
    well = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
    sys.stdout.write("done\n" if well else "killed\n" if os.WIFSIGNALED(status) else "failed\n")
    sys.stdout.flush()


def main() -> None:
    home = Path(sys.argv[1])
    store = Store(home)
    real_fsync = os.fsync

    def make(number: int) -> Model:
        run = Run(home, name="crash", fresh=True)
        try:
            return numbered(NumberConfig(number=number), run=run)
        finally:
            run.close()

    def loop(number: int) -> None:
        while True:
            make(number)
            number += 1

    def step(event: int, number: int) -> None:
        run = Run(home, name="crash", fresh=True)
        kill_self_at(event)
        numbered(NumberConfig(number=number), run=run)

    def remove(event: int) -> None:
        manifest = next(m for m in store.manifests() if m.config["number"] == 1)
        kill_self_at(event)
        store.remove(manifest)

    for line in sys.stdin:
        order, *numbers = line.split()
        os.fsync = real_fsync if order == "loop" else lambda handle: None  # what a killed process wrote, the kernel keeps
        first, *others = (int(n) for n in numbers)
        if order == "loop":
            in_child(lambda: loop(first), announce=True)  # noqa: B023
        elif order == "step":
            in_child(lambda: step(first, others[0]))  # noqa: B023
        elif order == "replace":
            made = make(0)
            (store.artifacts / made.id / "payload" / "config.json").write_text("damaged")
            in_child(lambda: step(first, 0))  # noqa: B023
        elif order == "remove":
            make(1)
            in_child(lambda: remove(first))  # noqa: B023


if __name__ == "__main__":
    main()
