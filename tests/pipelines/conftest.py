"""One real, small `up` shared by the tests of this folder: three documents of the sample handbook, the real 135M model."""

import io
import json
import shutil
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mygpt.cli.main import main

HANDBOOK = Path(__file__).parents[2] / "examples" / "handbook"
QUICK = ("--set", "minutes=1", "--set", "min_train_pairs=8", "--set", "sft.epochs=1", "--set", "evaluate.answers.max_tokens=16")
QUICK += ("--set", "evaluate.general.max_tokens=8", "--set", "evaluate.min_items=5", "--set", "model=smollm2-135m-q4_1")


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
    folder = base / "ferry"
    folder.mkdir()
    for file in sorted(HANDBOOK.rglob("*.md"))[:4]:
        shutil.copy(file, folder / file.name)
    code, result = mygpt("up", str(folder), "--home", str(base / "home"), *QUICK)
    assert code == 0, result
    return SmallUp(base / "home", folder, result)
