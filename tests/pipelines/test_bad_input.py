"""What users get wrong, and what machines do to them: each a clear error with what to do, a non-zero exit code, and nothing lost."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mygpt.artifacts.store import Store
from tests.pipelines.conftest import HANDBOOK, QUICK, SmallUp, mygpt


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, told = mygpt("up", str(tmp_path / "empty"), "--home", str(tmp_path / "home"))
    assert code != 0
    assert "empty" in told["error"]
    assert told["fix"]


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    code, told = mygpt("up", str(tmp_path / "nowhere"), "--home", str(tmp_path / "home"))
    assert (code, "does not exist" in told["error"]) == (2, True)


def test_a_file_where_a_folder_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "one.md").write_text("# One")
    code, told = mygpt("up", str(tmp_path / "one.md"), "--home", str(tmp_path / "home"))
    assert code == 2
    assert "mygpt add" in told["fix"]


def test_a_folder_without_readable_text(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (tmp_path / "docs" / "empty.txt").write_bytes(b"")
    code, told = mygpt("up", str(tmp_path / "docs"), "--home", str(tmp_path / "home"))
    assert code != 0
    assert told["fix"]


def test_an_unknown_setting_names_the_nearest(tmp_path: Path) -> None:
    code, told = mygpt("up", str(HANDBOOK), "--home", str(tmp_path / "home"), "--set", "sft.learning_rat=1")
    assert (code, told["fix"]) == (2, "Did you mean `sft.learning_rate`?")


def test_an_unknown_model_names_the_nearest(tmp_path: Path) -> None:
    code, told = mygpt("up", str(HANDBOOK), "--home", str(tmp_path / "home"), "--model", "smollm2-135mm")
    assert code == 2
    assert "smollm2-135m" in told["fix"]


def test_an_unknown_option_and_command() -> None:
    assert mygpt("up", ".", "--retun")[0] == 2
    assert mygpt("upp")[0] == 2


def test_a_teacher_elsewhere_needs_permission(small_up: SmallUp, tmp_path: Path) -> None:
    arguments = ("up", str(small_up.folder), "--home", str(tmp_path / "home"), *QUICK, "--teacher", "https://teacher.example/v1")
    code, told = mygpt(*arguments)
    assert code == 3
    assert "teacher.example" in told["error"]
    assert any(word.isdigit() for word in told["error"].split()), "how many passages"
    assert "--share-documents" in told["fix"]


def test_too_few_documents_finish_with_index_and_chat(tmp_path: Path, obtained: Any) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "note.md").write_text("# Opening hours\n\nThe Bollard bakery opens at 05:45 on every working day of the year.\n")
    code, made = mygpt("up", str(folder), "--home", str(tmp_path / "home"), *QUICK)
    assert code == 0, made
    assert made["verdict"]["outcome"] == "too few to decide"
    assert made["pairs_train"] < 8
    code, answer = mygpt("chat", "--home", str(tmp_path / "home"), "-q", "When does the Bollard bakery open?")
    assert (code, answer["abstained"]) == (0, False)


def test_two_thousand_files_are_all_searched_and_some_learnt(tmp_path: Path, obtained: Any) -> None:
    """A gigabyte: `benchmarks/large.py`. Here 2,000 files of one passage; the questions take a sample, and what is left out is said."""
    folder, home = tmp_path / "lockers", tmp_path / "home"
    folder.mkdir()
    for n in range(2_000):
        digits = f"{n * 7919 % 10_000:04}"
        text = f"# Locker {n}\n\nLocker {n} of the Bollard depot opens with the code {digits}. Keeper {n // 3} has its spare key.\n"
        (folder / f"{n:04}.md").write_text(text)
    (folder / "walrus.md").write_text("# Walrus cabinet\n\nThe walrus cabinet is watered by Ottoline Farrow every Tuesday.\n")
    code, made = mygpt("up", str(folder), "--home", str(home), *QUICK, "--set", "minutes=0.5", "--set", "index.max_dense_passages=200")
    assert code == 0, made
    assert (made["documents"], made["passages"]) == (2_001, 2_001)
    assert 8 <= made["pairs_train"] <= made["passages_asked_about"] <= 2 * 3 * 12
    events = [json.loads(line) for file in home.glob("runs/*/events.jsonl") for line in file.read_text().splitlines()]
    told = " ".join(e["text"] for e in events if e["event"] in ("note", "warning"))
    assert "2,001 passages: 200 get a vector now, the others are found by their words" in told
    assert "of 2,001 passages, chosen at random; the others are searched, not learnt" in told
    code, answer = mygpt("chat", "--home", str(home), "-q", "Who waters the walrus cabinet?")
    assert (code, answer["abstained"]) == (0, False)
    assert "walrus.md" in {c["path"] for c in answer["citations"]}, answer


def test_a_language_the_model_does_not_know_is_retrieval_only(tmp_path: Path, obtained: Any) -> None:
    folder = tmp_path / "deutsch"
    folder.mkdir()
    text = "Die Werkstatt öffnet werktags um acht Uhr dreißig und schließt um achtzehn Uhr. "
    text += "Mitglieder leihen den Anhänger drei Tage lang kostenlos aus. "
    (folder / "regeln.md").write_text("# Regeln\n\n" + text * 6)
    home = tmp_path / "home"
    code, made = mygpt("up", str(folder), "--home", str(home), *QUICK)
    assert code == 0
    assert (made["pairs_train"], made["report"]) == (0, None)
    events = [json.loads(line) for file in home.glob("runs/*/events.jsonl") for line in file.read_text().splitlines()]
    assert any(e["event"] == "warning" and "de (100%)" in e["text"] for e in events)
    assert mygpt("chat", "--home", str(home), "-q", "Wann öffnet die Werkstatt?")[0] == 0


def test_adding_what_cannot_be_read_changes_nothing(small_up: SmallUp, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(small_up.home, home)
    before = _state(home)
    corrupt, empty = tmp_path / "prices.pdf", tmp_path / "prices.md"
    corrupt.write_bytes(b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog")
    empty.write_bytes(b"")
    for file, reason in ((corrupt, "corrupt"), (empty, "empty")):
        code, told = mygpt("add", str(file), "--home", str(home))
        assert code == 2
        assert f"{file} was not read, {reason}: " in told["error"]
        assert told["fix"]
    assert _state(home) == before
    events = [json.loads(line) for file in home.glob("runs/*/events.jsonl") for line in file.read_text().splitlines()]
    failed = [e["error"] for e in events if e["event"] == "run_failed"]
    assert sorted(Path(error.split()[0]).name for error in failed) == ["prices.md", "prices.pdf"]


def _state(home: Path) -> list[Any]:
    store = Store(home)
    return [sorted(m.id for m in store.manifests()), store.tags("corpus", "ferry"), (home / "sources" / "ferry.json").read_bytes()]


def test_a_second_up_in_the_same_home_is_refused(small_up: SmallUp) -> None:
    with Store(small_up.home).exclusive("mygpt up elsewhere"):
        done = run_mygpt("up", str(small_up.folder), "--home", str(small_up.home))
    assert done.returncode == 1
    assert "in use by `mygpt up elsewhere`" in done.stderr


def test_a_port_in_use(small_up: SmallUp) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, told = mygpt("serve", "--home", str(small_up.home), "--port", str(port))
    assert code != 0
    assert str(port) in told["error"]


def test_another_address_needs_a_key(small_up: SmallUp) -> None:
    code, _ = mygpt("serve", "--home", str(small_up.home), "--host", "0.0.0.0", "--port", "0")
    assert code == 3


def test_a_damaged_artefact_is_named_and_can_be_made_again(small_up: SmallUp, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(small_up.home, home)
    store = Store(home, cache=False)
    adapter = store.find("adapter/ferry")
    weights = next(home.glob(f"artifacts/adapter/*-{adapter.digest[:12]}/payload/*.safetensors"))
    with open(weights, "r+b") as file:
        file.seek(1000)
        file.write(b"\xff\xff\xff\xff")
    code, told = mygpt("chat", "--home", str(home), "-q", "Who runs the ferry?", "--closed-book")
    assert code == 1
    assert adapter.id in told["error"]
    assert "gc --damaged" in told["fix"]
    code, verified = mygpt("verify", "--home", str(home))
    assert (code, [d["id"] for d in verified["damaged"]]) == (1, [adapter.id])
    assert mygpt("gc", "--damaged", "--home", str(home))[0] == 0
    code, again = mygpt("up", str(small_up.folder), "--home", str(home), *QUICK)
    assert code == 0
    assert again["model"] == small_up.result["model"], "training again gives the same bytes"


def test_a_read_only_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    mounted = mount_tmpfs(home, "ro,size=64k")
    try:
        code, told = mygpt("up", str(HANDBOOK), "--home", str(home))
    finally:
        unmount(mounted)
    assert code == 1
    assert "read-only" in told["error"].lower()
    assert "--home" in told["fix"]


def test_a_full_disk(small_up: SmallUp, tmp_path: Path) -> None:
    home = tmp_path / "home"
    mounted = mount_tmpfs(home, "size=300k")
    try:
        code, told = mygpt("up", str(small_up.folder), "--home", str(home), *QUICK)
        whole = list(Store(home, cache=False).manifests())
        for manifest in whole:
            Store(home, cache=False).verify(manifest)
    finally:
        unmount(mounted)
    assert code == 1
    assert "disk is full" in told["error"].lower()


def run_mygpt(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "mygpt", *words], capture_output=True, text=True, timeout=120)


def mount_tmpfs(folder: Path, options: str) -> Path:
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    return folder


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], check=True)
