"""One file of a data set from a hub that answers on this machine: fetched once, pinned to its commit, and read as a task."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mygpt.core.errors import Unreachable, UsageError
from mygpt.core.run import Run
from mygpt.lm.hub import DataFile, data_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SUMS = [{"question": f"What is {n} and {n}?", "answer": f"It doubles.\n#### {2 * n}"} for n in range(1, 4)]


def parquet(rows: list[dict[str, str]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


FILES = {"main/test.jsonl": "\n".join(map(json.dumps, SUMS)).encode(), "main/test-00000-of-00001.parquet": parquet(SUMS)}


@dataclass
class Hub:
    address: str = ""
    fetched: list[str] = field(default_factory=list)


@pytest.fixture
def hub() -> Iterator[Hub]:
    one = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            if path == "/api/datasets/owner/sums" or path in (
                "/api/datasets/owner/sums/revision/main",
                f"/api/datasets/owner/sums/revision/{COMMIT}",
                "/api/datasets/owner/sums/revision/refs%2Fconvert%2Fparquet",
            ):
                siblings = [{"rfilename": name, "size": len(data)} for name, data in FILES.items()]
                info = {"id": "owner/sums", "sha": COMMIT, "siblings": siblings, "cardData": {"license": "mit"}, "tags": []}
                self.reply(200, json.dumps({**info, "private": False}).encode(), body, {"Content-Type": "application/json"})
            elif path.startswith(prefix := f"/datasets/owner/sums/resolve/{COMMIT}/"):
                data = FILES[path.removeprefix(prefix)]
                if body:
                    one.fetched.append(path.removeprefix(prefix))
                self.reply(200, data, body, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT})
            elif path.startswith("/api/datasets/owner/sums/revision/"):
                self.reply(404, b"{}", body, {"X-Error-Code": "RevisionNotFound"})
            else:
                self.reply(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})

        def reply(self, status: int, data: bytes, body: bool, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        one.address = f"http://127.0.0.1:{server.server_address[1]}"
        yield one
        server.shutdown()


def mygpt_apart(home: Path, address: str, *words: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads its address when it is imported."""
    settings = {"HF_ENDPOINT": address, "MYGPT_HOME": str(home), "HF_HOME": str(home / "hf"), "NO_PROXY": "127.0.0.1", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "mygpt", "evaluate", "tasks", "--set", "builtin=gsm8k", *words, "--json"]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **settings})


@pytest.mark.parametrize("file", FILES)
def test_rows_of_a_hub_file_become_a_task(hub: Hub, tmp_path: Path, file: str) -> None:
    made = mygpt_apart(tmp_path, hub.address, "--source", f"hub:owner/sums@main/{file}")
    assert made.returncode == 0, made.stderr
    facts = json.loads(made.stdout)["facts"]
    assert (facts["task"], facts["items"]) == ("gsm8k", 3)
    kept = tmp_path / "models" / "data" / "owner--sums" / COMMIT / file
    assert kept.read_bytes() == FILES[file]
    assert f"Data owner/sums/{file} at commit 0123456789ab (licence mit)." in made.stderr
    [manifest] = [json.loads(p.read_text()) for p in (tmp_path / "artifacts" / "task").glob("*/manifest.json")]
    assert manifest["inputs"]["source"][0]["path"] == str(kept)  # repository and commit stand in the lineage
    again = mygpt_apart(tmp_path, hub.address, "--source", f"hub:owner/sums/{file}")
    assert json.loads(again.stdout)["id"] == json.loads(made.stdout)["id"] and hub.fetched == [file]  # once
    assert not list((tmp_path / "models" / "downloads").iterdir())


def test_a_kept_commit_needs_no_hub(hub: Hub, tmp_path: Path) -> None:
    named = f"hub:owner/sums@{COMMIT}/main/test.jsonl"
    offline = mygpt_apart(tmp_path, hub.address, "--source", named, "--offline")
    assert offline.returncode == 1
    assert f"Fetching {named} needs a connection, and `--offline` is on." in offline.stderr and not hub.fetched
    assert mygpt_apart(tmp_path, hub.address, "--source", named).returncode == 0
    kept = mygpt_apart(tmp_path, "http://127.0.0.1:9", "--source", named, "--offline")  # nobody listens there
    assert kept.returncode == 0, kept.stderr


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("hub:owner/sums/main/test.json", "The data set owner/sums has no file `main/test.json` at its newest. It has: `main/test.jsonl`"),
        ("hub:owner/none/a.jsonl", "The hub has no data set `owner/none` that you may read."),
        ("hub:owner/sums@v9/main/test.jsonl", "The hub has no data set `owner/sums` that you may read. Check owner, name and revision"),
    ],
)
def test_what_the_hub_does_not_have(hub: Hub, tmp_path: Path, named: str, said: str) -> None:
    result = mygpt_apart(tmp_path, hub.address, "--source", named)
    assert result.returncode == 2 and said in " ".join(result.stderr.split())


def test_no_hub_in_reach(tmp_path: Path) -> None:
    result = mygpt_apart(tmp_path, "http://127.0.0.1:9", "--source", "hub:owner/sums/main/test.jsonl")
    assert result.returncode == 1
    assert "The hub gave no answer about owner/sums within 3 seconds." in result.stderr


def test_names() -> None:
    assert DataFile.parse("hub:openai/gsm8k/main/a.parquet") == DataFile("openai/gsm8k", None, "main/a.parquet")
    assert DataFile.parse("hub:a/b@refs%2Fconvert%2Fparquet/x/0.parquet") == DataFile("a/b", "refs/convert/parquet", "x/0.parquet")
    for odd in ("hub:", "hub:a", "hub:a/b", "hub:a/b/", "hub:a/b/../x", "hub:../b/x", "hub:a/b/x//y", "hub:a b/c/x", "hub:/a/b/c"):
        with pytest.raises(UsageError, match="names no file of a data set"):
            DataFile.parse(odd)


def test_offline_asks_nobody(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MYGPT_HOME", str(tmp_path))
    monkeypatch.setenv("MYGPT_OFFLINE", "1")
    with pytest.raises(Unreachable, match="needs a connection"):
        data_file("hub:owner/sums/main/test.jsonl", run=run)
