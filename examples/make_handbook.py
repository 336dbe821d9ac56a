"""Makes the binary documents of `examples/handbook` (docx, pdf, pptx, xlsx, epub) from the plain text in `examples/handbook_sources`.

    python examples/make_handbook.py            writes into examples/handbook
    python examples/make_handbook.py FOLDER     writes into FOLDER

The sources are Markdown with few means: `#` the title, `##` a heading (a slide, a chapter), `-` a point, `>` a speaker's note, `|` a table,
and one line per paragraph; sheets of the workbook are CSV. The same library versions give the same bytes: times and identifiers are fixed.
Needs python-docx, python-pptx, openpyxl and reportlab.
"""

import csv
import re
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import docx
import openpyxl
import pptx
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "handbook_sources"
HANDBOOK = HERE / "handbook"
AUTHOR = "Osmery Ferry Co-operative"
MADE = "2026-02-26T09:00:00Z"
_KINDS = {"# ": "title", "## ": "heading", "- ": "point", "> ": "note"}


@dataclass(frozen=True)
class Block:
    kind: str  # title, heading, text, point, note, table
    text: str = ""
    rows: tuple[tuple[str, ...], ...] = ()  # of a table, the header first


def read_blocks(markdown: str) -> list[Block]:
    blocks: list[Block] = []
    for line in markdown.splitlines():
        mark = next((mark for mark in _KINDS if line.startswith(mark)), "")
        if line.startswith("|"):
            row = tuple(cell.strip() for cell in line.strip("|").split("|"))
            if blocks[-1].kind != "table":
                blocks.append(Block("table", rows=(row,)))
            elif set(line) - set("|- "):
                blocks[-1] = Block("table", rows=(*blocks[-1].rows, row))
        elif line.strip():
            blocks.append(Block(_KINDS.get(mark, "text"), line.removeprefix(mark)))
    return blocks


def split_at_headings(blocks: list[Block]) -> list[tuple[str, list[Block]]]:
    """(heading, what stands under it) for each `##`; what stands before the first is left to the caller."""
    parts: list[tuple[str, list[Block]]] = []
    for block in blocks:
        if block.kind == "heading":
            parts.append((block.text, []))
        elif parts:
            parts[-1][1].append(block)
    return parts


# -- one writer per format ------------------------------------------------------------------------------------------------------------


def write_docx(source: Path, target: Path) -> None:
    document = docx.Document()
    document.core_properties.author = AUTHOR
    for block in read_blocks(source.read_text(encoding="utf-8")):
        if block.kind == "title":
            document.core_properties.title = block.text
            document.add_heading(block.text, level=1)
        elif block.kind == "heading":
            document.add_heading(block.text, level=2)
        elif block.kind == "table":
            table = document.add_table(rows=0, cols=len(block.rows[0]), style="Table Grid")
            for row in block.rows:
                for cell, text in zip(table.add_row().cells, row, strict=True):
                    cell.text = text
        else:
            document.add_paragraph(block.text, style="List Bullet" if block.kind == "point" else None)
    document.save(str(target))
    _fix_times(target)


def write_pdf(source: Path, target: Path) -> None:
    styles = getSampleStyleSheet()
    by_kind = {"title": styles["Title"], "heading": styles["Heading2"], "text": styles["BodyText"], "point": styles["BodyText"]}
    flow: list[Flowable] = []
    blocks = read_blocks(source.read_text(encoding="utf-8"))
    for block in blocks:
        if block.kind == "table":
            flow += [Table([list(row) for row in block.rows], hAlign="LEFT", style=[("GRID", (0, 0), (-1, -1), 0.5, "grey")]), Spacer(1, 8)]
        else:
            flow.append(Paragraph(escape(block.text), by_kind[block.kind]))
    SimpleDocTemplate(str(target), pagesize=A4, title=blocks[0].text, author=AUTHOR, invariant=1).build(flow)


def write_pptx(source: Path, target: Path) -> None:
    deck = pptx.Presentation()
    blocks = read_blocks(source.read_text(encoding="utf-8"))
    deck.core_properties.title, deck.core_properties.author = blocks[0].text, AUTHOR
    first = [block for block in blocks[: next(i for i, b in enumerate(blocks) if b.kind == "heading")] if block.kind != "title"]
    for number, (heading, under) in enumerate([(blocks[0].text, first), *split_at_headings(blocks)]):
        slide = deck.slides.add_slide(deck.slide_layouts[0 if number == 0 else 1])
        slide.shapes.title.text = heading
        slide.placeholders[1].text = "\n".join(block.text for block in under if block.kind != "note")
        slide.notes_slide.notes_text_frame.text = "\n".join(block.text for block in under if block.kind == "note")
    deck.save(str(target))
    _fix_times(target)


def write_xlsx(source: Path, target: Path) -> None:
    """`NAME.SHEET.csv` beside each other make NAME.xlsx; `source` is the first of them."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    book.properties.creator, book.properties.title = AUTHOR, "Fares and duties"
    stem = source.name.split(".")[0]
    for name in ("fares", "duties"):
        sheet = book.create_sheet(name.capitalize())
        with open(source.with_name(f"{stem}.{name}.csv"), encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                sheet.append([int(cell) if cell.isdigit() else cell for cell in row])
        for column in sheet.columns:
            sheet.column_dimensions[column[0].column_letter].width = max(len(str(cell.value or "")) for cell in column) + 2
    book.save(target)
    _fix_times(target)


def write_epub(source: Path, target: Path) -> None:
    blocks = read_blocks(source.read_text(encoding="utf-8"))
    title, chapters = escape(blocks[0].text), split_at_headings(blocks)
    pages = {
        f"chapter{number}.xhtml": _xhtml(heading, f"<h1>{escape(heading)}</h1>\n" + "\n".join(f"<p>{escape(b.text)}</p>" for b in under))
        for number, (heading, under) in enumerate(chapters, start=1)
    }
    links = "\n".join(f'<li><a href="{page}">{escape(heading)}</a></li>' for page, (heading, _) in zip(pages, chapters, strict=True))
    contents = f'<nav xmlns:epub="http://www.idpf.org/2007/ops" epub:type="toc"><h1>Contents</h1><ol>\n{links}\n</ol></nav>'
    items = "\n".join(f'<item id="{page[:-6]}" href="{page}" media-type="application/xhtml+xml"/>' for page in pages)
    spine = "\n".join(f'<itemref idref="{page[:-6]}"/>' for page in pages)
    package = f"""<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="book">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:identifier id="book">osmery-ferry-history</dc:identifier>
<dc:title>{title}</dc:title><dc:creator>{AUTHOR}</dc:creator><dc:language>en</dc:language>
<meta property="dcterms:modified">{MADE}</meta>
</metadata>
<manifest>
<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
{items}
</manifest>
<spine>
{spine}
</spine>
</package>
"""
    container = """<?xml version="1.0" encoding="utf-8"?>
<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">
<rootfiles><rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/></rootfiles>
</container>
"""
    files = {"META-INF/container.xml": container, "OEBPS/content.opf": package, "OEBPS/nav.xhtml": _xhtml(blocks[0].text, contents)}
    files |= {f"OEBPS/{page}": text for page, text in pages.items()}
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(_entry("mimetype", zipfile.ZIP_STORED), "application/epub+zip")  # first and stored: the format asks for it
        for name, text in files.items():
            archive.writestr(_entry(name), text)


def _xhtml(title: str, body: str) -> str:
    head = f"<head><title>{escape(title)}</title></head>"
    html = f'<html xmlns="http://www.w3.org/1999/xhtml" lang="en">{head}\n<body>\n{body}\n</body>\n</html>'
    return f'<?xml version="1.0" encoding="utf-8"?>\n{html}\n'


def _entry(name: str, compression: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=(2026, 2, 26, 9, 0, 0))
    entry.compress_type = compression
    return entry


def _fix_times(path: Path) -> None:
    """Office files are zip archives that note when they were written: give every part the same time."""
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            if name == "docProps/core.xml":
                content = re.sub(rb"(<dcterms:(?:created|modified)[^>]*>)[^<]*", rb"\g<1>" + MADE.encode(), content)
            archive.writestr(_entry(name), content)


# -- what is made of what -------------------------------------------------------------------------------------------------------------

Writer = Callable[[Path, Path], None]
MADE_OF: dict[str, tuple[Writer, tuple[str, ...]]] = {  # document: how, and from which sources
    "policies.docx": (write_docx, ("policies.md",)),
    "people/staff_rules.docx": (write_docx, ("staff_rules.md",)),
    "people/induction.pptx": (write_pptx, ("induction.md",)),
    "maintenance_manual.pdf": (write_pdf, ("maintenance_manual.md",)),
    "rates_and_duties.xlsx": (write_xlsx, ("rates_and_duties.fares.csv", "rates_and_duties.duties.csv")),
    "history.epub": (write_epub, ("history.md",)),
}


def source_text(document: str) -> str:
    """The plain text that a binary document was made of; `document` is its path inside the handbook."""
    return "\n".join((SOURCES / name).read_text(encoding="utf-8") for name in MADE_OF[document][1])


def make_handbook(into: Path = HANDBOOK) -> list[Path]:
    made = []
    for document, (write, sources) in MADE_OF.items():
        target = into / document
        target.parent.mkdir(parents=True, exist_ok=True)
        write(SOURCES / sources[0], target)
        made.append(target)
    return made


if __name__ == "__main__":
    for path in make_handbook(Path(sys.argv[1]) if len(sys.argv) > 1 else HANDBOOK):
        sys.stdout.write(f"{path}\n")
