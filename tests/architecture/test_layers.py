"""Imports go down only: the contract of .importlinter."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path


def _lint(folder: Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    program = shutil.which("lint-imports", path=str(Path(sys.executable).parent)) or "lint-imports"
    return subprocess.run([program, "--no-cache", "--no-logo"], cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_imports_go_down_only(repository: Path) -> None:
    result = _lint(repository)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_contract_notices_a_stage_that_knows_another(repository: Path, tmp_path: Path) -> None:
    """The same contract over a small package of the same layout, sound and then with one import too many."""
    contract = (repository / ".importlinter").read_text()
    (tmp_path / ".importlinter").write_text(contract)
    for layer in _required(contract):
        folder = tmp_path / "mygpt" / layer
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
    (tmp_path / "mygpt" / "__init__.py").write_text("")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    (tmp_path / "mygpt" / "rag" / "good.py").write_text("import mygpt.infer, mygpt.artifacts\n")
    sound = _lint(tmp_path, environment)
    assert sound.returncode == 0, sound.stdout + sound.stderr
    for wrong in ("mygpt.finetune", "mygpt.pipelines"):
        (tmp_path / "mygpt" / "rag" / "bad.py").write_text(f"def f():\n    import {wrong}\n")
        broken = _lint(tmp_path, environment)
        assert broken.returncode == 1 and f"mygpt.rag.bad -> {wrong}" in broken.stdout, broken.stdout + broken.stderr


def _required(contract: str) -> list[str]:
    """The layers without brackets."""
    parsed = configparser.ConfigParser()
    parsed.read_string(contract)
    return [name for name in re.split(r"[\s|]+", parsed["importlinter:contract:layers"]["layers"].strip()) if not name.startswith("(")]
