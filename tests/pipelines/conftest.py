"""Two `up`s shared by the tests of this folder, on four documents of the sample handbook.

`small_up`  the real 135M model writes the questions and is tuned: a minute or two
`taught_up` a teacher on this machine writes them and a model of a few thousand weights is tuned: seconds
"""

import io
import json
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mygpt.cli.main import main
from tests.pipelines.teacher import Teacher, make_tiny_base, teaching

HANDBOOK = Path(__file__).parents[2] / "examples" / "handbook"
SMALL = ("--set", "minutes=1", "--set", "min_train_pairs=8", "--set", "sft.epochs=1", "--set", "evaluate.answers.max_tokens=16")
SMALL += ("--set", "evaluate.general.max_tokens=8", "--set", "evaluate.min_items=5")
QUICK = (*SMALL, "--set", "model=smollm2-135m-q4_1")
TINY = (*SMALL, "--set", "model=tiny", *(f"--set=sft.{name}=8192" for name in ("max_example_tokens", "step_tokens", "micro_batch_tokens")))


def mygpt(*words: str) -> tuple[int, Any]:
    """(exit code, parsed JSON) of one command, in this process."""
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit) as ended:
        main([*words, "--json"])
    text = out.getvalue().strip()
    return int(ended.value.code or 0), json.loads(text) if text else None


@dataclass(frozen=True)
class SmallUp:
    home: Path
    folder: Path
    result: dict[str, Any]


@pytest.fixture(scope="session")
def small_up(tmp_path_factory: pytest.TempPathFactory, obtained: Any) -> SmallUp:
    base = tmp_path_factory.mktemp("small")
    folder = ferry_documents(base)
    code, result = mygpt("up", str(folder), "--home", str(base / "home"), *QUICK)
    assert code == 0, result
    return SmallUp(base / "home", folder, result)


@dataclass(frozen=True)
class TaughtUp(SmallUp):
    teacher: Teacher

    def up(self, home: Path, *words: str) -> tuple[int, Any]:
        return mygpt("up", str(self.folder), "--home", str(home), *TINY, "--teacher", self.teacher.address, *words)


@pytest.fixture(scope="session")
def taught_up(tmp_path_factory: pytest.TempPathFactory, obtained: Any) -> Iterator[TaughtUp]:
    obtained("minilm")
    base = tmp_path_factory.mktemp("taught")
    folder = ferry_documents(base)
    make_tiny_base(base / "home", base / "tiny")
    with teaching() as teacher:
        code, result = mygpt("up", str(folder), "--home", str(base / "home"), *TINY, "--teacher", teacher.address)
        assert code == 0, result
        yield TaughtUp(base / "home", folder, result, teacher)


def ferry_documents(base: Path) -> Path:
    folder = base / "ferry"
    folder.mkdir()
    for file in sorted(HANDBOOK.rglob("*.md"))[:4]:
        shutil.copy(file, folder / file.name)
    return folder
