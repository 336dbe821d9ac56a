"""Commands on a home that a real `up` made, as they are typed: the record, the home, the chat in the terminal, the server."""

import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mygpt.artifacts.deployment import Deployment
from mygpt.artifacts.store import Store
from mygpt.cli.main import main
from tests.pipelines.conftest import SmallUp, TaughtUp, mygpt

QUESTION = "What colour is the charging cable?"


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a person sees of a command that succeeds."""
    with pytest.raises(SystemExit) as ended:
        main([*words])
    shown = capsys.readouterr()
    assert ended.value.code == 0, shown.err
    return shown.out


# -- the record ---------------------------------------------------------------------------------------------------------------


def test_show_lists_everything_and_opens_one(small_up: SmallUp, capsys: pytest.CaptureFixture[str]) -> None:
    code, rows = mygpt("show", "--home", str(small_up.home))
    made = [m.id for m in Store(small_up.home).manifests()]
    assert (code, [row["id"] for row in rows]) == (0, made)
    adapter = next(row for row in rows if row["id"] == small_up.result["tuned"])
    payload = small_up.home / "artifacts" / adapter["id"] / "payload"
    assert adapter["bytes"] >= sum(f.stat().st_size for f in payload.rglob("*") if f.is_file())
    shown = typed(capsys, "show", "--home", str(small_up.home))
    assert all(id in shown for id in made)

    code, manifest = mygpt("show", "adapter/ferry", "--home", str(small_up.home))
    assert (code, manifest["recipe"], manifest["config"]["epochs"]) == (0, "mygpt.finetune.sft:sft", 1)
    assert json.loads(typed(capsys, "show", "adapter/ferry", "--home", str(small_up.home))) == manifest
    code, told = mygpt("show", "adapter/fery", "--home", str(small_up.home))
    assert code == 2 and "`adapter/ferry`" in told["fix"]


def test_why_draws_the_family_back_to_the_folder(small_up: SmallUp, capsys: pytest.CaptureFixture[str]) -> None:
    code, tree = mygpt("why", "deployment/ferry", "--home", str(small_up.home))
    assert (code, tree["id"]) == (0, small_up.result["deployment"])
    assert {child["argument"] for child in tree["children"]} >= {"model", "adapter", "index", "report", "trained_on"}
    lines = typed(capsys, "why", "deployment/ferry", "--home", str(small_up.home)).splitlines()
    assert lines[0].startswith(small_up.result["deployment"])
    assert any(f"dataset: {Store(small_up.home).find('dataset/ferry').id}" in line for line in lines)
    assert sum(f"sources: source/ferry  {small_up.folder} (sha256 " in line for line in lines) == 1


def test_diff_names_the_one_input_that_changed(taught_up: TaughtUp, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, note = shutil.copytree(taught_up.home, tmp_path / "home"), tmp_path / "walrus.md"
    note.write_text("# Walrus desk\n\nThe Walrus desk opens at 06:15 and is led by Ottoline Farrow.\n")
    offer = typed(capsys, "add", str(note), "--home", str(home)).splitlines()
    assert offer[0].startswith("walrus.md is answered from now (") and offer[0].endswith("The model is the same.")
    assert offer[1].startswith(f"`mygpt up {taught_up.folder} --retune` trains anew, in about ")

    before, after = taught_up.result["deployment"], Store(home).find("deployment/ferry").id
    code, found = mygpt("diff", before, after, "--home", str(home))
    assert (code, found["a"], found["b"], found["same_content"]) == (0, before, after, False)
    assert [change["key"] for change in found["inputs"]] == ["index"]
    assert (found["config"], found["recipe"], found["packages"]) == ([], [], [])
    lines = typed(capsys, "diff", before, after, "--home", str(home)).splitlines()
    assert lines[:4] == [before, after, "Not the same bytes.", "inputs:"] and lines[4].startswith("  index: ")
    assert mygpt("diff", before, before, "--home", str(home))[1]["same_content"] is True


@pytest.mark.parametrize("kind", ["dataset", "adapter"])
def test_rerunning_gives_the_same_bytes(kind: str, taught_up: TaughtUp, tmp_path: Path) -> None:
    home = shutil.copytree(taught_up.home, tmp_path / "home")
    asked = taught_up.teacher.num_requests
    code, again = mygpt("rerun", f"{kind}/ferry", "--home", str(home))
    assert (code, again["identical"], again["kept"]) == (0, True, False), again["differences"]
    assert (taught_up.teacher.num_requests > asked) == (kind == "dataset"), "made again, not read from a cache"
    assert [m.id for m in Store(home).manifests()] == [m.id for m in Store(taught_up.home).manifests()]


def test_where_prints_the_row_of_a_technique(capsys: pytest.CaptureFixture[str]) -> None:
    code, row = mygpt("where", "sft")
    assert (code, row["name"], row["stage"], row["path"]) == (0, "sft", "finetune", "mygpt.finetune.sft:sft")
    assert (Path(__file__).parents[2] / row["page"]).is_file()
    assert "mygpt.finetune.sft:sft" in typed(capsys, "where", "sft")
    code, told = mygpt("where", "sfft")
    assert code == 2 and "sft" in told["fix"]


# -- the home -----------------------------------------------------------------------------------------------------------------


def test_init_makes_the_home_that_is_found_from_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MYGPT_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert mygpt("init", "--dry-run") == (0, {"home": str(tmp_path / ".mygpt"), "made": True})
    assert list(tmp_path.iterdir()) == []
    assert mygpt("init") == (0, {"home": str(tmp_path / ".mygpt"), "made": True})
    assert (tmp_path / ".mygpt" / ".gitignore").read_text() == "*\n"
    assert mygpt("init") == (0, {"home": str(tmp_path / ".mygpt"), "made": False})
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    code, told = mygpt("chat", "-q", "Who?")
    assert (code, told["error"]) == (2, f"Nothing was made in {tmp_path / '.mygpt'} yet.")


# -- talking ------------------------------------------------------------------------------------------------------------------


def test_a_conversation_in_the_terminal(small_up: SmallUp, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{QUESTION}\n\n/new\n{QUESTION}\n"))
    said = typed(capsys, "chat", "ferry", "--home", str(small_up.home))
    _, once = mygpt("chat", "ferry", "-q", QUESTION, "--home", str(small_up.home))
    assert once["citations"], once
    first = once["citations"][0]
    footnote = f"[1] {first['path']}, {first['place']}: “{' '.join(first['quote'].split())}”"
    assert "runs on this machine; nothing leaves it." in said
    assert said.count(once["answer"]) == 2, "asked anew after /new, it answers as if for the first time"
    assert " ".join(said.split()).count(footnote) == 2


def test_the_server_answers_from_the_documents_and_shows_the_source(small_up: SmallUp, tmp_path: Path) -> None:
    home = shutil.copytree(small_up.home, tmp_path / "home")
    command = [sys.executable, "-m", "mygpt", "serve", "ferry", "--home", str(home), "--port", "0"]
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would this child
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, handler)
    try:
        assert server.stderr is not None
        address = next(line.split()[2] for line in server.stderr if line.startswith("Chat at "))
        with httpx2.Client(base_url=address, timeout=60) as client:
            assert client.get("/health").json()["status"] == "ok"
            assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["ferry", "ferry-closed-book"]
            body: dict[str, Any] = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 40, "temperature": 0}
            answer = client.post("/v1/chat/completions", json={**body, "model": "ferry"}).json()
            closed = client.post("/v1/chat/completions", json={**body, "model": "ferry-closed-book"}).json()
            citation = answer["choices"][0]["message"]["mygpt"]["citations"][0]
            asked = {"document_id": citation["document_id"], "start": citation["source_start"], "end": citation["source_end"]}
            source = client.get("/api/source", params=asked).json()
            elsewhere = client.get("/api/source", params={**asked, "end": 10**7}).status_code
            suggestions = client.get("/api/page").json()["suggestions"]
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 0
    finally:
        server.kill()
    text = (small_up.folder / "boats.md").read_text(encoding="utf-8")
    assert (source["path"], source["title"]) == ("boats.md", "The boats")
    assert source["cited"] == citation["quote"] != ""
    assert source["before"] + source["cited"] + source["after"] in text
    assert elsewhere == 404
    said = closed["choices"][0]["message"]
    assert said["content"] and said["mygpt"]["citations"] == []
    dataset = Deployment.open(Store(home), "ferry").dataset
    assert dataset is not None and 0 < len(suggestions) <= 4
    assert set(suggestions) <= {row.question for row in dataset.split("train")}
    newest = max(home.glob("runs/*/events.jsonl"), key=lambda file: file.stat().st_mtime)
    assert [json.loads(line)["event"] for line in newest.read_text().splitlines()][-1] == "run_finished"
