"""Which files a name stands for, and that two folders of one name are told apart."""

import json
import os
from pathlib import Path

import pytest

from mygpt.core.errors import Damaged, MygptError, UsageError
from mygpt.pipelines.sources import Sources, load_sources, newest_sources, sources_of_folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "a" / "docs"
    folder.mkdir(parents=True)
    return folder


def test_a_folder_is_named_after_itself(home: Path, docs: Path) -> None:
    sources = sources_of_folder(home, docs, None)
    assert sources == Sources("docs", (docs,))
    assert not home.exists()  # nothing is written before it is known to work
    assert sources_of_folder(home, docs, "My handbook!").name == "My-handbook"


def test_however_it_is_spelt(home: Path, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources_of_folder(home, docs, None).save(home)
    monkeypatch.chdir(docs)
    (docs.parent / "link").symlink_to(docs)
    for spelling in (Path("."), Path("../docs"), docs.parent / "link"):
        assert sources_of_folder(home, spelling, None) == Sources("docs", (docs,))


def test_saved_and_loaded_with_what_was_added(home: Path, docs: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra.pdf"
    wider = sources_of_folder(home, docs, None).with_file(extra)
    wider.save(home)
    assert load_sources(home, "docs") == Sources("docs", (docs, extra))
    assert sources_of_folder(home, docs, None) == wider  # a later `up` keeps it
    assert sources_of_folder(home, docs, "docs") == wider
    assert [p.name for p in (home / "sources").iterdir()] == ["docs.json"]
    assert load_sources(home, "other") is None


def test_a_file_is_added_once(docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = Sources("docs", (docs,))
    once = base.with_file(Path("x/../extra.pdf"))
    assert once.paths == (docs, tmp_path / "extra.pdf")
    assert once.with_file(tmp_path / "extra.pdf") is once
    assert base.with_file(docs / "part" / "new.md") is base  # lies in the folder
    assert base.with_file(docs / ".drafts" / "new.md").paths == (docs, docs / ".drafts" / "new.md")  # which hidden files do not
    (tmp_path / "link.md").symlink_to(docs / "new.md")
    assert base.with_file(tmp_path / "link.md").paths[1].name == "link.md"


def test_another_folder_of_the_same_name(home: Path, docs: Path, tmp_path: Path) -> None:
    sources_of_folder(home, docs, None).save(home)
    other = tmp_path / "b" / "docs"
    other.mkdir(parents=True)
    own = sources_of_folder(home, other, None)
    assert own.name.startswith("docs-") and len(own.name) == len("docs-") + 6 and own.paths == (other,)
    own.with_file(tmp_path / "extra.pdf").save(home)
    assert sources_of_folder(home, other, None).paths == (other, tmp_path / "extra.pdf")
    with pytest.raises(UsageError, match=f"The name `docs` belongs to {docs}") as refused:
        sources_of_folder(home, other, "docs")
    assert "--name" in refused.value.fix


def test_long_names_stay_apart(home: Path, tmp_path: Path) -> None:
    """A name in the store holds 80 characters: what tells the two apart must be among them."""
    long = "handbook-" * 12
    names = []
    for parent in ("a", "b"):
        (tmp_path / parent / long).mkdir(parents=True)
        sources = sources_of_folder(home, tmp_path / parent / long, None)
        sources.save(home)
        names.append(sources.name)
    assert names[0] != names[1] and max(map(len, names)) <= 80


def test_newest(home: Path, docs: Path) -> None:
    with pytest.raises(UsageError, match="Nothing was made"):
        newest_sources(home)
    Sources("zebra", (docs,)).save(home)
    Sources("ant", (docs,)).save(home)
    os.utime(home / "sources" / "zebra.json", (1, 1))
    assert newest_sources(home).name == "ant"
    os.utime(home / "sources" / "ant.json", (0, 0))
    assert newest_sources(home).name == "zebra"


def test_what_is_not_a_folder(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        sources_of_folder(home, tmp_path / "nowhere", None)
    (tmp_path / "one.md").write_text("# One")
    with pytest.raises(UsageError, match="is a file") as refused:
        sources_of_folder(home, tmp_path / "one.md", None)
    assert "mygpt add FILE" in refused.value.fix


@pytest.mark.parametrize("content", ["", "[", "[]", '["relative/folder"]', "7", '"text"', "\ud800"])
def test_a_damaged_record(content: str, home: Path, docs: Path) -> None:
    (home / "sources").mkdir(parents=True)
    (home / "sources" / "docs.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    for reading in (lambda: load_sources(home, "docs"), lambda: sources_of_folder(home, docs, None), lambda: newest_sources(home)):
        with pytest.raises(Damaged, match=r"docs\.json cannot be read") as told:
            reading()
        assert "mygpt up DIR" in told.value.fix


def test_a_name_is_never_a_path(home: Path, docs: Path, tmp_path: Path) -> None:
    (home / "sources").mkdir(parents=True)
    (tmp_path / "secret.json").write_text(json.dumps([str(docs)]))
    assert load_sources(home, "../../secret") is None
    Sources("../../evil", (docs,)).save(home)
    assert [p.name for p in (home / "sources").iterdir()] == ["evil.json"]


def test_a_home_that_cannot_be_written(docs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MygptError) as told:
        Sources("docs", (docs,)).save(tmp_path / "file")
    assert str(tmp_path / "file") in told.value.what
