"""Examples on the disk: what is read is what was rendered, what is kept and for how long, and that memory does not grow with the set."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mygpt.artifacts.recipe import Making
from mygpt.core.errors import MygptError, Refused
from mygpt.core.run import Run
from mygpt.lm.chat import Rendered
from mygpt.training.example_file import examples_on_disk
from tests.finetune import large_site, shapes, toys

REPOSITORY = Path(__file__).resolve().parents[2]
GIVEN = [
    ("first", Rendered((5, 70_000, 2), (False, True, True), ())),
    ("", Rendered((9,), (False,), (), ("said", "twice"))),
    ("Größe", Rendered((1, 2, 3, 4), (True, False, False, True), (), ("said",))),
]


@pytest.fixture
def making(run: Run) -> Run:
    """As inside a recipe."""
    return run.within(Making("tests:nothing", {}, {}, {}, 0, "a" * 64))


def drawn(seen: list[str]) -> Iterator[tuple[str, Rendered]]:
    for name, example in GIVEN:
        seen.append(name)
        yield name, example


def files(run: Run) -> list[Path]:
    return sorted((run.home / "cache" / "examples").glob("*"))


def test_read_as_rendered(making: Run) -> None:
    with examples_on_disk(iter(GIVEN), rendered_by="x", run=making) as examples:
        assert list(examples) == [example for _, example in GIVEN] and len(examples) == 3
        assert all(type(token) is int for token in examples[0].token_ids) and all(type(t) is bool for t in examples[0].trained)
        assert examples.num_tokens == [3, 1, 4] and examples.num_trained == [2, 0, 1]  # the first token of the third is no label
        assert list(examples.names) == ["0 (first)", "1", "2 (Größe)"]
        assert examples.shortest(2) == [GIVEN[1][1], GIVEN[0][1]]
        some = examples.chosen([2, 0])
        assert list(some) == [GIVEN[2][1], GIVEN[0][1]] and list(some.names) == ["0 (Größe)", "1 (first)"] and some.num_tokens == [4, 3]
        (folder,) = files(making)
        marked = [10, 140_001, 5, 18, 3, 4, 6, 9]  # twice the id, and one more where it is trained
        assert np.fromfile(folder / "tokens.bin", "<u4").tolist() == marked
        assert sorted(p.name for p in folder.iterdir()) == ["about.json", "index.npy", "names.bin", "tokens.bin"]


def test_kept_until_the_work_is_done(making: Run) -> None:
    """A fault leaves them for the next try, which draws nothing; what was rendered by something else is not taken."""
    seen: list[str] = []
    notes: list[str] = []
    making.listeners.append(lambda event: notes.append(event["text"]) if event["event"] == "note" else None)
    for error, rendered_by, drawings in ((KeyboardInterrupt, "x", 3), (MygptError, "x", 3), (KeyboardInterrupt, "y", 6)):
        with pytest.raises(error), examples_on_disk(drawn(seen), rendered_by=rendered_by, run=making) as examples:
            assert list(examples) == [example for _, example in GIVEN]
            raise error("diverged", fix="...") if error is MygptError else error
        assert len(seen) == drawings and len(files(making)) == 1
    assert notes == [f"3 examples were tokenised before: they are read from {files(making)[0]}."]
    with examples_on_disk(drawn(seen), rendered_by="y", run=making):
        pass
    assert len(seen) == 6 and files(making) == []


def test_refused_work_leaves_nothing(making: Run) -> None:
    with pytest.raises(Refused), examples_on_disk(iter(GIVEN), rendered_by="x", run=making):
        raise Refused("Too long.", fix="Shorten it.")
    assert files(making) == []

    def broken() -> Iterator[tuple[str, Rendered]]:
        yield GIVEN[0]
        raise Refused("No template.", fix="Write one.")

    with pytest.raises(Refused, match="No template"), examples_on_disk(broken(), rendered_by="x", run=making):
        raise AssertionError("there are no examples")
    assert files(making) == []


@pytest.mark.parametrize("part", ["tokens.bin", "names.bin", "index.npy", "about.json"])
def test_damaged_ones_are_made_anew(part: str, making: Run) -> None:
    seen: list[str] = []
    with pytest.raises(KeyboardInterrupt), examples_on_disk(drawn(seen), rendered_by="x", run=making):
        raise KeyboardInterrupt
    file = files(making)[0] / part
    file.write_bytes(file.read_bytes()[:-1])
    with examples_on_disk(drawn(seen), rendered_by="x", run=making) as examples:
        assert list(examples) == [example for _, example in GIVEN]
    assert len(seen) == 6


def test_what_a_kill_left_half_written_is_removed(making: Run) -> None:
    half = making.home / "cache" / "examples" / f".{'a' * 32}.4711"
    half.mkdir(parents=True)
    (half / "tokens.bin").write_bytes(b"half")
    with examples_on_disk(iter(GIVEN), rendered_by="x", run=making) as examples:
        assert list(examples) == [example for _, example in GIVEN] and len(files(making)) == 1
    assert files(making) == []


def test_a_full_disk(making: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "index.npy")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(MygptError, match="The disk is full"), examples_on_disk(iter(GIVEN), rendered_by="x", run=making):
        raise AssertionError("there are no examples")
    assert files(making) == []


# -- memory ------------------------------------------------------------------------------------------------------------------

ROWS = 20_000
MOST_BYTES = 40_000_000  # that a process may grow by, with a set of 200 tokens a row


def size_in_memory(examples: list[Rendered]) -> int:
    """Of the two tuples of each; their numbers are shared by all."""
    return sum(sys.getsizeof(example.token_ids) + sys.getsizeof(example.trained) for example in examples)


SLOW = [pytest.param(recipe, marks=pytest.mark.slow) for recipe in ("sft", "masked_lm", "span_corruption")]
SHAPES = {"masked_lm": "bert", "span_corruption": "t5"}  # BERT's window is 128: two for each row


@pytest.mark.parametrize("recipe", ["causal_lm", *SLOW])
def test_memory_does_not_grow_with_the_set(recipe: str, run: Run) -> None:
    """Tokenised, checked, planned and one step trained, in a process of its own; held in memory, as lists of what was rendered, they would
    be more than what it grew by in all."""
    shape = SHAPES.get(recipe)
    base = shapes.base(shapes.BaseConfig(shape=shape), run=run) if shape else toys.base(toys.BaseConfig(), run=run)
    few, many = (large_site.rows(large_site.RowsConfig(rows=n, recipe=recipe), run=run) for n in (50, ROWS))
    order = {"home": str(run.home), "model": base.digest, "few": few.digest, "many": many.digest, "recipe": recipe}
    places = os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.finetune.large_site", json.dumps(order)]
    done = subprocess.run(command, text=True, capture_output=True, env=environment, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert told["examples"] == (2 if recipe == "masked_lm" else 1) * ROWS and 180 * ROWS < told["tokens"] < 240 * ROWS
    assert told["file_bytes"] == 4 * told["tokens"]
    sample = [Rendered((5,) * n, (True,) * n, ()) for n in told["lengths"]]
    assert size_in_memory(sample) / len(sample) * told["examples"] > 1.5 * MOST_BYTES
    assert told["grown_bytes"] < MOST_BYTES
