"""Every format: text, structure and places, on files made here."""

import json
from pathlib import Path

import pytest

from mygpt.data.readers.conversion import Converted, Reading, Unreadable
from mygpt.data.readers.encoding import decode
from mygpt.data.readers.formats import format_of, read
from tests.data import ingest_files as make


def converted(file: Path) -> Converted:
    return read(format_of(file).name, file, Reading())


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def place_of(result: Converted, words: str) -> str:
    """The place that holds at the first occurrence of `words`."""
    at = result.text.index(words)
    return [place for start, place in result.places if start <= at][-1]


def test_markdown_keeps_structure_and_drops_what_only_a_renderer_needs(tmp_path: Path) -> None:
    source = """---
title: "Setup guide"
---
<!-- for editors -->
<p align="center"><img src="logo.png" alt="Logo"></p>

# Install

Use the [quick start](docs/quick.md "x") or the
[site](https://example.org/a).

!!! warning
    Needs Python 3.11.

## Linux

Run this:

```sh
pip install <name>   # [not a link](x.md)
```

---

Windows
-------

* one
* two
"""
    result = converted(written(tmp_path, "a.md", source))
    assert result.title == "Setup guide"
    assert result.text == (
        "# Install\n\nUse the quick start or the [site](https://example.org/a).\n\nWarning: Needs Python 3.11.\n\n"
        "## Linux\n\nRun this:\n\n```sh\npip install <name>   # [not a link](x.md)\n```\n\n## Windows\n\n* one\n* two"
    )
    assert [place for _, place in result.places] == ["Install", "Linux", "Windows"]
    assert place_of(result, "pip install") == "Linux"


def test_heading_paths(tmp_path: Path) -> None:
    result = converted(written(tmp_path, "a.md", "# Install\n\na\n\n## Linux\n\nb\n\n### Debian `apt`\n\nc\n\n# Use\n\nd\n"))
    assert [place for _, place in result.places] == ["Install", "Install > Linux", "Install > Linux > Debian apt", "Use"]


def test_restructured_and_plain_text(tmp_path: Path) -> None:
    result = converted(written(tmp_path, "a.rst", "Manual\n======\n\nFirst line\nsecond line.\n\nPart\n----\n\nEnd.\n"))
    assert (result.title, [p for _, p in result.places]) == ("Manual", ["Manual", "Part"])
    assert "First line\nsecond line." in result.text
    assert converted(written(tmp_path, "README", "Plain words.\n")).text == "Plain words."


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Das Café in der Straße öffnet täglich – außer montags – um 8 Uhr. „Schön“, sagte er; es kostet 5 €."),
        ("latin-1", "Il a été décidé que les employés reçoivent 30 jours de congé par année, à partir de l'été."),
        ("iso8859-2", "Zażółć gęślą jaźń. Wszystkie pracowniczki mogą wziąć urlop, jeżeli złożą wniosek na piśmie."),
        ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy. Zaměstnanci mají nárok na dovolenou."),
        ("cp1251", "Все люди рождаются свободными и равными в своём достоинстве и правах."),
        ("shift_jis", "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。"),
        ("gb18030", "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。"),
        ("utf-16", "Größe"),
        ("utf-16-le", "Hello there, Größe and more"),
        ("utf-8-sig", "Größe"),
    ],
)
def test_encodings_round_trip(encoding: str, text: str) -> None:
    assert decode(text.encode(encoding)) == text


def test_binary_is_no_text() -> None:
    assert decode(bytes(range(256)) * 20) is None
    assert decode(b"\x7fELF\x02\x01\x01" + bytes(200)) is None


def test_html_document(tmp_path: Path) -> None:
    source = """<!DOCTYPE html><html><head><title>Refunds - Example Ltd</title><script>var x = "never shown";</script></head><body>
    <nav><a href="/">Home</a></nav><h1>Refunds</h1>
    <p>Ask <b>within</b> 30 days,<br>in writing. See <a href="https://a.b/c">the form</a>.</p>
    <h2>How</h2><ul><li>Mail us<ol><li>name</li><li>number</li></ol></li><li>Wait</li></ul>
    <table><tr><th>Plan</th><th>Price</th></tr><tr><td>Basic | small</td><td>10 EUR</td></tr></table>
    <pre><code>pip install x
  run it</code></pre><dl><dt>SLA</dt><dd>service level</dd></dl><footer>Imprint</footer></body></html>"""
    result = converted(written(tmp_path, "a.html", source))
    assert result.title == "Refunds"
    assert result.text == (
        "# Refunds\n\nAsk within 30 days,\nin writing. See [the form](https://a.b/c).\n\n## How\n\n- Mail us\n  1. name\n"
        "  2. number\n- Wait\n\n"
        "| Plan | Price |\n| --- | --- |\n| Basic \\| small | 10 EUR |\n\n```\npip install x\n  run it\n```\n\nSLA: service level"
    )
    assert place_of(result, "Basic") == "How"


def test_html_page_with_menus_gives_its_main_text(tmp_path: Path) -> None:
    menu = "".join(f'<li><a href="/p{i}">Menu entry number {i} of the shop</a></li>' for i in range(60))
    text = "".join(f"<p>{make.prose(i, 60)}</p>" for i in range(5))
    body = f"<div class='menu'><ul>{menu}</ul></div><div class='content'><h1>Visits</h1>{text}</div>"
    source = f"<html><head><title>Visits</title></head><body>{body}</body></html>"
    result = converted(written(tmp_path, "a.html", source))
    assert make.prose(3, 60) in result.text
    assert "Menu entry" not in result.text


def test_very_deep_html(tmp_path: Path) -> None:
    deep = "<div>" * 50_000 + "bottom" + "</div>" * 50_000
    result = converted(written(tmp_path, "a.html", f"<html><body><p>Top of the page.</p>{deep}</body></html>"))
    assert "Top of the page." in result.text


def test_pdf_paragraphs_hyphens_headings_and_pages(tmp_path: Path) -> None:
    first = [
        (72, 760, 18, "Visitor rules"),
        (72, 720, 11, "Every visitor signs the book at the entrance before walk-"),
        (72, 706, 11, "ing upstairs with a host. The book lies on the long desk."),
        (72, 670, 11, "Short lines:"),
        (72, 656, 11, "Door 1 north"),
        (72, 642, 11, "Door 2 south"),
        (72, 606, 11, "At night the doors are closed, and the guard on duty lets"),
        (290, 30, 9, "1"),
    ]
    second = [(72, 760, 11, "people in after a call. Keys are never lent to anybody at"), (72, 746, 11, "any time."), (290, 30, 9, "2")]
    result = converted(make.pdf(tmp_path / "a.pdf", [first, second], title="Rules of the house"))
    assert result.title == "Rules of the house"
    assert result.text == (
        "## Visitor rules\n\n"
        "Every visitor signs the book at the entrance before walking upstairs with a host. The book lies on the long desk.\n\n"
        "Short lines:\n\nDoor 1 north\nDoor 2 south\n\n"
        "At night the doors are closed, and the guard on duty lets people in after a call.\n\nKeys are never lent to anybody at any time."
    )
    assert place_of(result, "people in after a call") == "page 1"
    assert place_of(result, "Keys are never") == "page 2"


def test_pdf_running_headers_go(tmp_path: Path) -> None:
    pages = [
        [(72, 810, 9, f"House rules, version 7, page {n}"), (72, 760, 11, make.prose(n, 9)), (72, 700, 11, make.prose(n + 50, 9))]
        for n in range(1, 5)
    ]
    result = converted(make.pdf(tmp_path / "a.pdf", pages))
    assert "version 7" not in result.text
    assert all(make.prose(n, 9) in result.text for n in range(1, 5))


def test_docx(tmp_path: Path) -> None:
    paragraphs = [
        ("Title", "Staff guide"),
        ("Heading1", "Leave"),
        ("Normal", "You have 30 days."),
        ("Heading2", "Illness"),
        ("Normal", "Call first."),
    ]
    result = converted(make.docx(tmp_path / "a.docx", paragraphs, [["Year", "Days"], ["2025", "30"]]))
    assert result.title == "Staff guide"
    assert result.text.endswith("## Illness\n\nCall first.\n\n| Year | Days |\n| --- | --- |\n| 2025 | 30 |")
    assert place_of(result, "Call first.") == "Leave > Illness"


def test_pptx(tmp_path: Path) -> None:
    import pptx
    from pptx.util import Inches

    deck = pptx.Presentation()
    for title, points in (("Plan", ["Hire two people", "Open in May"]), ("Costs", ["About 10,000 EUR"])):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = "\n".join(points)
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(4), Inches(4), Inches(1)).table
    for row, cells in enumerate((("Item", "EUR"), ("Desk", "400"))):
        for column, cell in enumerate(cells):
            table.cell(row, column).text = cell
    slide.notes_slide.notes_text_frame.text = "Say it slowly."
    deck.save(str(tmp_path / "a.pptx"))
    result = converted(tmp_path / "a.pptx")
    assert result.title == "Plan"
    assert result.text == (
        "## Plan\n\n- Hire two people\n- Open in May\n\n## Costs\n\nAbout 10,000 EUR\n\n"
        "| Item | EUR |\n| --- | --- |\n| Desk | 400 |\n\nNotes: Say it slowly."
    )
    assert [place for _, place in result.places] == ["slide 1", "slide 2"]


def test_xlsx(tmp_path: Path) -> None:
    import datetime

    import openpyxl

    book = openpyxl.Workbook()
    book.active.title = "Prices"
    for row in (
        ["Price list"],
        [],
        ["Item", "EUR", "From"],
        ["Desk", 400.0, datetime.date(2025, 3, 1)],
        ["Lamp", 19.5, None],
        [None, None, None],
    ):
        book.active.append(row)
    long = book.create_sheet("Log")
    for i in range(120):
        long.append([f"entry {i}", i])
    book.save(tmp_path / "a.xlsx")
    result = converted(tmp_path / "a.xlsx")
    assert result.text.startswith(
        "Price list\n\n| Item | EUR | From |\n| --- | --- | --- |\n| Desk | 400 | 2025-03-01 |\n| Lamp | 19.5 |  |\n\n| entry 0 | 0 |"
    )
    assert place_of(result, "Lamp") == "sheet Prices"
    assert place_of(result, "entry 70 ") == "sheet Log, rows 51-100"


def test_epub(tmp_path: Path) -> None:
    chapters = ["<h1>One</h1><p>The first chapter.</p>", "<h1>Two</h1><p>The second.</p><h2>Aside</h2><p>A remark.</p>"]
    result = converted(make.epub(tmp_path / "a.epub", chapters, title="The Book"))
    assert result.title == "The Book"
    assert result.text == "# One\n\nThe first chapter.\n\n# Two\n\nThe second.\n\n## Aside\n\nA remark."
    assert place_of(result, "A remark.") == "Two > Aside"
    with pytest.raises(Unreadable) as caught:
        converted(make.epub(tmp_path / "b.epub", chapters, encrypted=True))
    assert caught.value.reason == "encrypted"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_delimiters_and_ragged_rows(tmp_path: Path, delimiter: str) -> None:
    rows = [["name", "price, EUR; net"], ["Desk", "400"], ["Lamp"], ["Chair", "90", "oak"]]
    text = "\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows)
    result = converted(written(tmp_path, "a.csv", text))
    assert result.text == ("| name | price, EUR; net |  |\n| --- | --- | --- |\n| Desk | 400 |  |\n| Lamp |  |  |\n| Chair | 90 | oak |")
    assert result.notes == ("2 of 4 rows have more or fewer cells than the others",)


def test_long_csv_is_placed_by_rows(tmp_path: Path) -> None:
    result = converted(written(tmp_path, "a.csv", "id,word\n" + "".join(f"{i},word{i}\n" for i in range(2, 202))))
    assert place_of(result, "word120 ") == "rows 101-150"  # the header is row 1


def test_jsonl_counts_broken_lines(tmp_path: Path) -> None:
    lines = [
        json.dumps({"title": "Leave", "text": "You have 30 days.", "year": 2025}),
        "{broken",
        json.dumps({"question": "Where?", "answer": "Here."}),
    ]
    result = converted(written(tmp_path, "a.jsonl", "\n".join(lines)))
    assert result.text == "## Leave\n\nYou have 30 days.\n\nyear: 2025\n\nquestion: Where?\n\nanswer: Here."
    assert result.places == ((0, "line 1"), (result.text.index("question"), "line 3"))
    assert result.notes == ("1 of 3 lines are not JSON",)


def test_old_and_foreign_endings_say_what_to_save_as(tmp_path: Path) -> None:
    for name, target in (("a.doc", ".docx"), ("a.xls", ".xlsx"), ("a.json", ".jsonl")):
        with pytest.raises(Unreadable) as caught:
            format_of(written(tmp_path, name, "x"))
        assert (caught.value.reason, caught.value.fix) == ("unsupported", f"Save it as {target}.")


def test_a_pdf_by_another_name_is_read_as_pdf(tmp_path: Path) -> None:
    assert format_of(make.pdf(tmp_path / "a.txt", [[(72, 700, 12, "Hello")]])).name == "pdf"
