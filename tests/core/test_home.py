"""`--home`, else $MYGPT_HOME, else the nearest `.mygpt/` upward, else `~/.mygpt`."""

from pathlib import Path

import pytest

from mygpt.core.home import find_home, model_cache


@pytest.fixture(autouse=True)
def somebody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.delenv("MYGPT_HOME", raising=False)
    return tmp_path


def test_order(somebody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = somebody / "project"
    deep = project / "docs" / "deep"
    deep.mkdir(parents=True)
    assert find_home(start=deep) == somebody / "user" / ".mygpt"
    (somebody / ".mygpt").mkdir()
    assert find_home(start=deep) == somebody / ".mygpt"
    (project / ".mygpt").mkdir()
    assert find_home(start=deep) == project / ".mygpt"  # the nearest
    monkeypatch.chdir(deep)
    assert find_home() == project / ".mygpt"
    monkeypatch.setenv("MYGPT_HOME", "~/elsewhere")
    assert find_home(start=deep) == somebody / "user" / "elsewhere"
    assert find_home(Path("given"), start=deep) == deep / "given"
    assert find_home(Path("~/given")) == somebody / "user" / "given"


def test_a_file_of_that_name_is_not_a_home(somebody: Path) -> None:
    (somebody / ".mygpt").write_text("")
    assert find_home(start=somebody) == somebody / "user" / ".mygpt"


def test_looking_makes_nothing(somebody: Path) -> None:
    find_home(start=somebody)
    model_cache()
    assert list(somebody.iterdir()) == []


def test_model_cache(somebody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_cache() == somebody / "user" / ".cache" / "mygpt"
    monkeypatch.setenv("MYGPT_HOME", str(somebody / "h"))
    assert model_cache() == somebody / "h" / "models"
