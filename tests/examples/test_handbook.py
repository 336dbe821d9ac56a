"""The sample handbook: all ten formats, binaries that say what their sources say, questions that it answers."""

import csv
import html
import importlib.util
import json
import re
import zipfile
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import docx
import openpyxl
import pptx
import pypdfium2
import pytest

ROOT = Path(__file__).resolve().parents[2]
HANDBOOK = ROOT / "examples" / "handbook"
FIXTURES = ROOT / "tests" / "fixtures" / "handbook"
TEXT_FORMATS = {".md", ".txt", ".html", ".csv", ".jsonl"}
BINARY_FORMATS = {".docx", ".pdf", ".pptx", ".xlsx", ".epub"}


@cache
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_handbook", ROOT / "examples" / "make_handbook.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documents() -> list[Path]:
    return sorted(path for path in HANDBOOK.rglob("*") if path.is_file())


def read(path: Path) -> str:
    """What a reader sees, one paragraph or cell per line, by a library that did not write it where there is one (pdf, epub)."""
    match path.suffix:
        case ".html":
            return _strip_tags(path.read_text(encoding="utf-8"))
        case ".jsonl":
            return "\n".join("\n".join(json.loads(line).values()) for line in path.read_text(encoding="utf-8").splitlines())
        case ".csv":
            with open(path, encoding="utf-8", newline="") as file:
                return "\n".join(cell for row in csv.reader(file) for cell in row)
        case ".docx":
            document = docx.Document(str(path))
            cells = [cell.text for table in document.tables for row in table.rows for cell in row.cells]
            return "\n".join([paragraph.text for paragraph in document.paragraphs] + cells)
        case ".pptx":
            slides = pptx.Presentation(str(path)).slides
            shown = [shape.text_frame.text for slide in slides for shape in slide.shapes if shape.has_text_frame]
            return "\n".join(shown + [slide.notes_slide.notes_text_frame.text for slide in slides])
        case ".xlsx":
            sheets = openpyxl.load_workbook(path).worksheets
            return "\n".join(str(cell) for sheet in sheets for row in sheet.iter_rows(values_only=True) for cell in row)
        case ".pdf":
            with pypdfium2.PdfDocument(path) as pdf:
                return "\n".join(page.get_textpage().get_text_bounded() for page in pdf)
        case ".epub":
            with zipfile.ZipFile(path) as archive:
                pages = [name for name in archive.namelist() if name.endswith(".xhtml")]
                return "\n".join(_strip_tags(archive.read(name).decode()) for name in pages)
        case _:
            return path.read_text(encoding="utf-8")


def _strip_tags(page: str) -> str:
    return html.unescape(re.sub(r"<(style)\b.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL))


def one_line(text: str) -> str:
    return " ".join(text.split())


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.lower()))


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FIXTURES / name).read_text(encoding="utf-8").splitlines()]


def test_all_ten_formats_are_there() -> None:
    count = Counter(path.suffix for path in documents())
    assert set(count) == TEXT_FORMATS | BINARY_FORMATS
    assert count[".md"] == 6 and count[".txt"] == count[".html"] == count[".docx"] == 2


def test_about_twenty_pages() -> None:
    """20 pages of 400 to 500 words."""
    num_words = sum(len(read(path).split()) for path in documents())
    assert 8_000 <= num_words <= 10_000, num_words


def test_the_pdf_has_two_or_three_pages_and_the_workbook_two_sheets() -> None:
    with pypdfium2.PdfDocument(HANDBOOK / "maintenance_manual.pdf") as pdf:
        assert len(pdf) in (2, 3)
    assert openpyxl.load_workbook(HANDBOOK / "rates_and_duties.xlsx").sheetnames == ["Fares", "Duties"]


def test_every_binary_has_its_source() -> None:
    binaries = {path.relative_to(HANDBOOK).as_posix() for path in documents() if path.suffix in BINARY_FORMATS}
    assert binaries == set(maker().MADE_OF)


def test_making_the_binaries_anew_gives_the_same_text_and_the_same_bytes_twice(tmp_path: Path) -> None:
    once, twice = maker().make_handbook(tmp_path / "once"), maker().make_handbook(tmp_path / "twice")
    for one, two in zip(once, twice, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name
        committed = HANDBOOK / one.relative_to(tmp_path / "once")
        assert read(one) == read(committed), f"{committed} is not what its source says: run examples/make_handbook.py"


@pytest.mark.parametrize(
    "document", ["policies.docx", "people/staff_rules.docx", "people/induction.pptx", "maintenance_manual.pdf", "history.epub"]
)
def test_every_paragraph_of_a_source_is_in_its_document(document: str) -> None:
    shown = one_line(read(HANDBOOK / document))
    blocks = maker().read_blocks(maker().source_text(document))
    assert len(blocks) >= 10
    for block in blocks:
        for text in (block.text, *(cell for row in block.rows for cell in row)):
            assert one_line(text) in shown


def test_every_cell_of_the_workbook_is_in_its_sources() -> None:
    source = re.split(r"[,\n]", maker().source_text("rates_and_duties.xlsx").strip())
    assert read(HANDBOOK / "rates_and_duties.xlsx").split("\n") == [cell for cell in source if cell]


def test_sixty_questions_each_with_its_evidence() -> None:
    questions = rows("questions.jsonl")
    assert len(questions) == 60 and len({row["id"] for row in questions}) == 60
    for row in questions:
        path = HANDBOOK / row["path"]
        text = maker().source_text(row["path"]) if path.suffix in BINARY_FORMATS else html.unescape(path.read_text(encoding="utf-8"))
        assert row["evidence"] in text, row["id"]
        assert row["evidence"] in one_line(read(path)), row["id"]


def test_questions_are_spread_over_the_documents() -> None:
    asked = Counter(row["path"] for row in rows("questions.jsonl"))
    assert set(asked) == {path.relative_to(HANDBOOK).as_posix() for path in documents()}
    assert max(asked.values()) <= 5


def test_questions_are_worded_differently_from_their_evidence() -> None:
    for row in rows("questions.jsonl"):
        question, evidence = words(row["question"]), words(row["evidence"])
        assert len(question & evidence) / len(question | evidence) <= 0.5, row["id"]


def test_the_numbers_of_an_answer_stand_in_the_document() -> None:
    """Numbers in an answer come from the evidence, or from the same table row (the workbook's evidence is one cell)."""
    for row in rows("questions.jsonl"):
        numbers = re.findall(r"\d[\d:.,]*\d|\d", row["answer"])
        assert all(number in row["evidence"] for number in numbers), row["id"]


def test_thirty_off_topic_questions_of_which_eight_are_near() -> None:
    off_topic = rows("off_topic.jsonl")
    assert len(off_topic) == 30 and len({row["question"] for row in off_topic}) == 30
    assert Counter(row["kind"] for row in off_topic)["near_topic"] == 8


def test_planted_sentences_are_nowhere_in_the_handbook() -> None:
    planted = rows("planted.jsonl")
    everything = one_line(" ".join(read(path) for path in documents()))
    assert len(planted) == 15
    for row in planted:
        assert (HANDBOOK / row["near_path"]).is_file() and row["why_false"]
        assert row["sentence"] not in everything
