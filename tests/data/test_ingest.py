"""The recipe: what is read, what is skipped and why, the cache, and that nothing takes the run down."""

import io
import os
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pypdfium2
import pytest

from mygpt.artifacts.corpus import Corpus, Skipped
from mygpt.core.errors import MygptError, UsageError
from mygpt.core.run import Run
from mygpt.data import ingest as ingest_module
from mygpt.data.ingest import IngestConfig, ingest
from mygpt.data.readers import pool as pool_module
from mygpt.data.readers.ocr import Tesseract, find_tesseract
from tests.data import ingest_files as make

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder ../shared/data is not there")
GOOD = "The office opens at eight o'clock in the morning. Visitors sign the book."


class Session:
    """One home, and every event of its runs."""

    def __init__(self, home: Path):
        self.home = home
        self.events: list[dict[str, Any]] = []

    def ingest(self, *sources: Path, fresh: bool = False, ocr: Tesseract | None = None, **settings: Any) -> Corpus:
        run = Run(self.home, name="docs", fresh=fresh, listeners=(self.events.append,))
        try:
            return ingest(IngestConfig(**settings), sources=sources, ocr=ocr, run=run)
        finally:
            run.close()

    @property
    def warnings(self) -> list[str]:
        return [event["text"] for event in self.events if event["event"] == "warning"]


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path / "home")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "good.md").write_text(f"# Hours\n\n{GOOD}\n")
    return folder


def skipped(corpus: Corpus) -> dict[str, Skipped]:
    return {item.path: item for item in corpus.skipped}


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(folder)): (p.lstat().st_size, p.lstat().st_mtime_ns) for p in folder.rglob("*")}


def test_a_file_in_an_old_encoding_is_read_as_it_was_meant(session: Session, docs: Path) -> None:
    """From bytes on the disk to passages: a Windows file, and Excel's "Unicode text" (UTF-16 with its mark)."""
    old = "Das Café in der Straße öffnet täglich – außer montags – um 8 Uhr. „Schön“, sagte er; es kostet 5 €."
    (docs / "cafe.txt").write_bytes(old.encode("cp1252"))
    (docs / "prices.csv").write_bytes("Größe,Preis\nklein,5 €\n".encode("utf-16"))
    with pytest.raises(UnicodeDecodeError):
        (docs / "cafe.txt").read_text(encoding="utf-8")
    corpus = session.ingest(docs)
    texts = {document.path: document.text for document in corpus.documents.values()}
    assert corpus.skipped == []
    assert texts["cafe.txt"] == old
    assert "Größe" in texts["prices.csv"] and "5 €" in texts["prices.csv"]
    assert old in {passage.text for passage in corpus.passages}


def test_corpus_of_a_folder(session: Session, docs: Path) -> None:
    (docs / "sub").mkdir()
    (docs / "sub" / "plan_for-2025.txt").write_text(make.prose(3, 400))
    before = snapshot(docs)
    corpus = session.ingest(docs)
    assert [d.path for d in corpus.documents.values()] == ["good.md", "sub/plan_for-2025.txt"]
    assert [(d.title, d.language, d.media_type) for d in corpus.documents.values()] == [
        ("Hours", "en", "text/markdown"),
        ("plan for 2025", "en", "text/plain"),
    ]
    assert len(corpus.passages) >= 4
    for passage in corpus.passages:
        document = corpus.documents[passage.span.document_id]
        assert document.text[passage.span.start : passage.span.end] == passage.text
    assert corpus.manifest.facts["languages"] == {"en": 2}
    assert corpus.manifest.provenance["sources"] == [str(docs)]
    assert snapshot(docs) == before
    assert [e for e in session.events if e["event"] == "progress"][-1]["done"] == 2
    assert session.ingest(docs).digest == corpus.digest
    assert session.events[-1]["event"] == "step_cached"


@needs_shared
def test_shared_documents_are_read_or_named(session: Session) -> None:
    corpus = session.ingest(SHARED / "documents")
    assert set(skipped(corpus)) == {"file_image.pdf", "file_scanned.pdf"}
    assert all(item.reason == "scanned" and "tesseract" in item.fix for item in corpus.skipped)
    texts = {d.path: d for d in corpus.documents.values()}
    assert texts["pdf_encrypted.pdf"].text.endswith("This document is a placeholder for the appropriate documentation.")
    assert "Zylon agents are trained to proactively execute tasks" in texts["file.docx"].text
    assert texts["file.xlsx"].text.startswith("| Nome | CPF/RG | e-mail | Total Horas |")
    assert "consectetuer adipiscing elit" in texts["file_multicolumn.pdf"].text  # was broken as "adip-iscing"
    assert texts["file_failing.docx"].language == "es"
    assert set(skipped(corpus)) | set(texts) == {p.name for p in (SHARED / "documents").iterdir()}


@needs_shared
def test_httpx_docs_are_read_quickly(session: Session) -> None:
    started = time.perf_counter()
    corpus = session.ingest(SHARED / "httpx_docs")
    assert time.perf_counter() - started < 6  # 1.3 s measured on two idle cores
    assert len(corpus.documents) == 23
    assert corpus.skipped == []
    assert {d.language for d in corpus.documents.values()} == {"en"}
    places = {(p.path, p.span.place) for p in corpus.passages}
    assert ("advanced/timeouts.md", "Fine tuning the configuration") in places


def test_many_small_files(session: Session, tmp_path: Path) -> None:
    docs = tmp_path / "many"
    docs.mkdir()
    for i in range(300):
        body = "\n\n".join(make.prose(i * 10 + k, 60) for k in range(3))
        if i % 10 == 0:
            (docs / f"{i}.html").write_text(f"<html><body><h1>Page {i}</h1><p>{body}</p></body></html>")
        else:
            (docs / f"{i}.md").write_text(f"# Page {i}\n\n{body}\n")
    started = time.perf_counter()
    corpus = session.ingest(docs)
    assert len(corpus.documents) == 300
    assert time.perf_counter() - started < 15  # 2,000 such files: measured in docs/data/ingest.md


# -- bad input -------------------------------------------------------------------------------------------------------------


def test_missing_empty_and_textless_folders(session: Session, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        session.ingest(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"has no documents in it\. Put documents there \(\.md"):
        session.ingest(tmp_path / "empty")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"\x89PNG")
    make.scanned_pdf(tmp_path / "pictures" / "b.pdf")
    with pytest.raises(UsageError, match=r"no readable text: 2 files skipped \(1 scanned, 1 unsupported\)"):
        session.ingest(tmp_path / "pictures")
    assert not list((session.home / "artifacts").glob("corpus/*"))


def test_every_kind_of_bad_file_is_named_and_the_rest_goes_on(session: Session, docs: Path) -> None:
    (docs / "zero.txt").write_bytes(b"")
    (docs / "binary.txt").write_bytes(b"\x7fELF" + bytes(range(256)) * 8)
    with open(docs / "huge.txt", "wb") as file:
        file.truncate(200_000_000)
    make.scanned_pdf(docs / "scan.pdf")
    locked = make.pdf(docs / "locked.pdf", [[(72, 700, 12, "Secret words of the board")]], password="sesame")
    whole = make.docx(docs / "broken.docx", [("Normal", GOOD)]).read_bytes()
    (docs / "broken.docx").write_bytes(whole[: len(whole) // 2])
    (docs / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing follows")
    (docs / "broken.jsonl").write_text("{\n{\n")
    (docs / "blank.md").write_text(" \n\n\t\n")
    (docs / "old.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    (docs / "locked.docx").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(500) + "EncryptedPackage".encode("utf-16-le") + bytes(500))
    (docs / "web.html").write_text("<html><body></body></html>")
    os.mkfifo(docs / "pipe.txt")
    with pypdfium2.PdfDocument(locked, password="sesame") as opened:  # the file is sound: only the password is missing
        assert "Secret words" in opened[0].get_textpage().get_text_range()
    corpus = session.ingest(docs)
    assert [d.path for d in corpus.documents.values()] == ["good.md"]
    assert {path: item.reason for path, item in skipped(corpus).items()} == {
        "zero.txt": "empty",
        "binary.txt": "binary",
        "huge.txt": "too large",
        "scan.pdf": "scanned",
        "locked.pdf": "encrypted",
        "broken.docx": "corrupt",
        "broken.pdf": "corrupt",
        "broken.jsonl": "corrupt",
        "blank.md": "no text",
        "old.xls": "unsupported",
        "locked.docx": "encrypted",
        "web.html": "no text",
        "pipe.txt": "unsupported",
    }
    assert all(item.detail and item.fix for item in corpus.skipped)
    assert "tesseract" in skipped(corpus)["scan.pdf"].fix
    assert "max_file_mb" in skipped(corpus)["huge.txt"].fix
    assert any("2 files skipped, encrypted: locked.docx, locked.pdf." in warning for warning in session.warnings)


def test_a_pdf_with_the_empty_password_is_read(session: Session, docs: Path) -> None:
    make.pdf(docs / "open.pdf", [[(72, 700, 12, "Words behind an empty password")]], password="")
    corpus = session.ingest(docs)
    assert [d.text for d in corpus.documents.values() if d.path == "open.pdf"] == ["Words behind an empty password"]


def test_zip_bomb_is_not_unpacked(session: Session, docs: Path) -> None:
    with zipfile.ZipFile(make.docx(docs / "bomb.docx", [("Normal", "x")]), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/media/image1.xml", bytes(60_000_000))
    assert (docs / "bomb.docx").stat().st_size < 200_000
    item = skipped(session.ingest(docs))["bomb.docx"]
    assert (item.reason, item.detail) == ("too large", "It unpacks to 60 MB from 0.1 MB.")


def test_links(session: Session, docs: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("Nobody may read this.")
    (docs / "file.txt").symlink_to(tmp_path / "outside" / "secret.txt")
    (docs / "folder").symlink_to(tmp_path / "outside")
    (docs / "loop.txt").symlink_to(docs / "loop.txt")
    (docs / "gone.txt").symlink_to(docs / "not there.txt")
    (docs / "sub").mkdir()
    (docs / "sub" / "up").symlink_to(docs)
    (docs / "same.md").symlink_to(docs / "good.md")
    corpus = session.ingest(docs)
    assert {path: item.reason for path, item in skipped(corpus).items()} == {
        "file.txt": "link out of the folder",
        "folder": "link out of the folder",
        "loop.txt": "broken link",
        "gone.txt": "broken link",
    }
    assert [d.path for d in corpus.documents.values()] == ["good.md"]
    assert "Nobody" not in "".join(d.text for d in corpus.documents.values())


def test_duplicates_hidden_files_and_names(session: Session, docs: Path) -> None:
    (docs / "z copy.md").write_bytes((docs / "good.md").read_bytes())
    (docs / ".hidden.md").write_text("Hidden words.")
    (docs / ".git").mkdir()
    (docs / ".git" / "notes.md").write_text("Hidden words.")
    (docs / "~$draft.docx").write_bytes(b"lock")
    (docs / "naïve 文件\nname.txt").write_text("A name with a line break.")
    (docs / os.fsdecode(b"caf\xe9.txt")).write_text("A name in an old encoding.")
    corpus = session.ingest(docs)
    assert [(s.path, s.reason, s.detail) for s in corpus.skipped] == [("z copy.md", "duplicate", "It is a duplicate of good.md.")]
    assert {d.path for d in corpus.documents.values()} == {"good.md", "naïve 文件 name.txt", "caf\ufffd.txt"}


def test_unreadable_permissions(session: Session, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = docs / "secret.md"
    secret.write_text("Not for you.")
    honest = ingest_module.digest_file

    def denied(path: Path) -> str:  # the tests may run as root, to whom nothing is denied
        if path == secret:
            raise PermissionError(13, "Permission denied", str(path))
        return honest(path)

    monkeypatch.setattr(ingest_module, "digest_file", denied)
    item = skipped(session.ingest(docs))["secret.md"]
    assert (item.reason, item.detail) == ("unreadable", "Permission denied.")
    assert stat.S_ISREG(secret.stat().st_mode)


def test_single_files_are_added_under_distinct_paths(session: Session, docs: Path, tmp_path: Path) -> None:
    other = tmp_path / "mail" / "good.md"
    other.parent.mkdir()
    other.write_text("Another file of the same name.")
    corpus = session.ingest(docs, other, docs / "good.md")
    assert {d.path for d in corpus.documents.values()} == {"good.md", "mail/good.md"}
    assert corpus.skipped == []


def test_partly_read_files_are_told(session: Session, docs: Path) -> None:
    (docs / "rows.jsonl").write_text('{"text": "One fine record."}\n{oops\n')
    corpus = session.ingest(docs)
    assert corpus.manifest.facts["notes"] == ["rows.jsonl: 1 of 2 lines are not JSON"]
    assert session.warnings == ["1 file read in part: rows.jsonl: 1 of 2 lines are not JSON."]


# -- parsers that crash or hang ----------------------------------------------------------------------------------------------


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """A worker that does `body` for files called bad*, and its ordinary work otherwise."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, signal, sys, time\nfrom mygpt.data.readers import worker\nhonest = worker.read\n"
        f"def read(name, file, reading):\n    if file.name.startswith('bad'):\n        {body}\n    return honest(name, file, reading)\n"
        "worker.read = read\nworker.main()\n"
    )
    monkeypatch.setattr(pool_module, "_COMMAND", [sys.executable, str(script)])


@pytest.mark.parametrize(
    ("body", "reason", "detail"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "corrupt", "Its parser crashed (SIGSEGV)."),
        ("os._exit(7)", "corrupt", "Its parser crashed (exit code 7)."),
        ("time.sleep(60)", "too slow", "Its parser gave no sign of life for 4 s."),
        ("print('noise'); raise ValueError('odd  table')", "corrupt", "Its parser stopped: ValueError: odd table."),
        ("bytearray(8 << 30)", "too large", "Reading it needs more memory than one file is given."),
    ],
)
def test_a_parser_takes_only_its_file_down(
    session: Session, docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, reason: str, detail: str
) -> None:
    if "raise" in body or "bytearray" in body:  # errors inside a reader: let the honest `read` meet them
        script = "from mygpt.data.readers import html, worker\nhonest = html.read_html\ndef broken(file, reading):\n"
        script += f"    if file.name.startswith('bad'):\n        {body}\n    return honest(file, reading)\n"
        script += "html.read_html = broken\nworker.main()\n"
        (tmp_path / "worker.py").write_text(script)
        monkeypatch.setattr(pool_module, "_COMMAND", [sys.executable, str(tmp_path / "worker.py")])
    else:
        stand_in(tmp_path, monkeypatch, body)
    for name in ("a", "bad1", "bad2", "c", "d"):
        (docs / f"{name}.html").write_text(f"<html><body><p>Page {name}. {GOOD}</p></body></html>")
    corpus = session.ingest(docs, patience_seconds=4 if "sleep" in body else 60)
    assert {d.path for d in corpus.documents.values()} == {"a.html", "c.html", "d.html", "good.md"}
    assert {s.path: (s.reason, s.detail) for s in corpus.skipped} == {"bad1.html": (reason, detail), "bad2.html": (reason, detail)}


def test_a_worker_that_cannot_start_is_our_fault_not_the_files(session: Session, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make.pdf(docs / "a.pdf", [[(72, 700, 12, "Hello")]])
    monkeypatch.setattr(pool_module, "_COMMAND", [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(MygptError, match="did not start"):
        session.ingest(docs)


def test_parsers_open_no_connection_and_import_nothing_from_the_documents(
    session: Session, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lxml", "json", "mammoth"):
        (docs / f"{name}.py").write_text("raise SystemExit('imported from the documents')")
    paths = [
        make.docx(docs / "a.docx", [("Normal", GOOD)]),
        make.pdf(docs / "a.pdf", [[(72, 700, 12, "Hello")]]),
        make.epub(docs / "a.epub", ["<p>Hi</p>"]),
    ]
    code = (
        "import sys, pathlib\nseen = []\n"
        "watched = ('socket.connect', 'socket.getaddrinfo', 'subprocess.Popen')\n"
        "sys.addaudithook(lambda event, args: seen.append((event, args)) if event in watched"
        " or (event == 'open' and isinstance(args[1], str) and any(c in args[1] for c in 'wax+')) else None)\n"
        "from mygpt.data.readers.formats import format_of, read\nfrom mygpt.data.readers.conversion import Reading\n"
        "for path in sys.argv[1:]:\n    file = pathlib.Path(path)\n    assert read(format_of(file).name, file, Reading()).text\nprint(seen)"
    )
    command = [sys.executable, "-P", "-B", "-c", code, *map(str, paths)]
    done = subprocess.run(command, cwd=docs, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    monkeypatch.chdir(docs)
    corpus = session.ingest(docs)
    assert {path: item.reason for path, item in skipped(corpus).items()} == {
        "json.py": "unsupported",
        "lxml.py": "unsupported",
        "mammoth.py": "unsupported",
    }
    assert {d.path for d in corpus.documents.values()} == {"a.docx", "a.epub", "a.pdf", "good.md"}


# -- conversions kept ------------------------------------------------------------------------------------------------------


def test_one_new_file_costs_only_itself(session: Session, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make.pdf(docs / "a.pdf", [[(72, 700, 12, "First words of the file")]])
    session.ingest(docs)
    kept = list((session.home / "cache" / "converted").iterdir())
    assert len(kept) == 1
    read_now: list[str] = []
    honest = pool_module.Child.read

    def counted(self: Any, file: Path, form: Any, ocr: Any) -> Any:
        read_now.append(file.name)
        return honest(self, file, form, ocr)

    monkeypatch.setattr(pool_module.Child, "read", counted)
    make.pdf(docs / "b.pdf", [[(72, 700, 12, "Second words of the file")]])
    assert len(session.ingest(docs).documents) == 3
    assert read_now == ["b.pdf"]
    for file in kept:
        file.write_text("{damaged")
    (docs / "c.md").write_text("More words.")
    assert {d.path: d.text for d in session.ingest(docs).documents.values()}["a.pdf"] == "First words of the file"
    assert read_now == ["b.pdf", "a.pdf"]
    session.ingest(docs, fresh=True)
    assert sorted(read_now[2:]) == ["a.pdf", "b.pdf"]


# -- pictures of pages -----------------------------------------------------------------------------------------------------


def test_tesseract_reads_scanned_pages(session: Session, docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "tesseract"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\ncase \"$1\" in\n--version) echo 'tesseract 9.1';;\n--list-langs) printf 'List (2):\\neng\\nosd\\n';;\n"
        "*) head -c 8 | od -An -tx1 | tr -d ' \\n'; echo \" on $3 $4: Read from the picture.\";;\nesac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    ocr = find_tesseract()
    assert ocr is not None
    assert ocr.identity == {"engine": "tesseract", "version": "9.1", "languages": "eng"}
    make.scanned_pdf(docs / "scan.pdf")
    assert set(skipped(session.ingest(docs))) == {"scan.pdf"}
    corpus = session.ingest(docs, ocr=ocr)
    assert corpus.skipped == []
    texts = {d.path: d.text for d in corpus.documents.values()}
    assert texts["scan.pdf"] == "89504e470d0a1a0a on -l eng: Read from the picture."  # it was given a PNG
    assert corpus.manifest.tools["ocr"] == ocr.identity


def test_no_tesseract(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_tesseract() is None


def test_pictures_in_the_making_are_what_they_claim(tmp_path: Path) -> None:
    with pypdfium2.PdfDocument(io.BytesIO(make.scanned_pdf(tmp_path / "a.pdf").read_bytes())) as scan:
        assert scan[0].get_textpage().get_text_range() == ""
