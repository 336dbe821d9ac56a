"""Word, PowerPoint and Excel files, through mammoth, python-pptx and openpyxl."""

import datetime
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mygpt.data.passages import heading_places
from mygpt.data.readers.archive import check_archive
from mygpt.data.readers.conversion import Converted, Parts, Reading, clean
from mygpt.data.readers.html import parse
from mygpt.data.readers.html_markdown import to_markdown
from mygpt.data.readers.tables import add_table, markdown_table
from mygpt.data.readers.text import first_heading

_MOST_CELLS = 5_000_000
_MOST_GAP_ROWS = 10_000  # empty rows after which a sheet is taken to be over
_WORD_STYLES = "p[style-name='Title'] => h1:fresh\np[style-name='Subtitle'] => p:fresh"


def read_docx(file: Path, reading: Reading) -> Converted:
    check_archive(file, member="word/document.xml")
    import mammoth

    with open(file, "rb") as opened:
        # Pictures are not read; no address in the file is followed.
        html = mammoth.convert_to_html(opened, style_map=_WORD_STYLES, convert_image=lambda image: []).value
    root = parse(f"<body>{html}</body>")
    text = "" if root is None else clean(to_markdown(root.find("body")))
    return Converted(text, first_heading(text), heading_places(text))


def read_pptx(file: Path, reading: Reading) -> Converted:
    check_archive(file, member="ppt/presentation.xml")
    import pptx

    deck = pptx.Presentation(str(file))
    parts = Parts()
    title = ""
    for number, slide in enumerate(deck.slides, 1):
        reading.alive()
        title_shape = slide.shapes.title
        heading = " ".join(title_shape.text_frame.text.split()) if title_shape is not None else ""
        title = title or heading
        body = [f"## {heading}"] if heading else []
        body += [text for shape in _shapes(slide.shapes) if not _is(shape, title_shape) for text in _shape_text(shape)]
        notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
        if notes is not None and notes.text.strip():
            body.append(f"Notes: {notes.text.strip()}")
        parts.add("\n\n".join(body), f"slide {number}")
    return parts.converted(title=title or (deck.core_properties.title or "").strip())


def _is(shape: Any, other: Any) -> bool:
    return other is not None and shape.shape_id == other.shape_id


def _shapes(shapes: Iterable[Any]) -> Iterator[Any]:
    """Down into groups; from top to bottom, then left to right."""
    for shape in sorted(shapes, key=lambda s: (s.top or 0, s.left or 0)):
        if getattr(shape, "shapes", None) is not None:
            yield from _shapes(shape.shapes)
        else:
            yield shape


def _shape_text(shape: Any) -> Iterator[str]:
    if getattr(shape, "has_table", False):
        yield markdown_table([[cell.text for cell in row.cells] for row in shape.table.rows])
    elif getattr(shape, "has_text_frame", False):
        paragraphs = [(p.level, p.text.replace("\v", " ").strip()) for p in shape.text_frame.paragraphs if p.text.strip()]
        is_list = len(paragraphs) > 1
        if paragraphs:
            yield "\n".join(f"{'  ' * level}- {text}" if is_list else text for level, text in paragraphs)


def read_xlsx(file: Path, reading: Reading) -> Converted:
    check_archive(file, member="xl/workbook.xml")
    import openpyxl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and validations, which are not read
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        parts = Parts()
        notes = []
        for sheet in book.worksheets:
            reading.alive()
            sheet.reset_dimensions()  # files state wrong ones
            left_out = _read_sheet(sheet, parts, reading)
            if left_out:
                notes.append(f"sheet {sheet.title} is read up to {_MOST_CELLS:,} cells")
        title = (book.properties.title or "").strip()
        book.close()
    return parts.converted(title=title, notes=tuple(notes))


def _read_sheet(sheet: Any, parts: Parts, reading: Reading) -> bool:
    """Each stretch of rows between empty ones is a table. True when the sheet was too long."""
    place = f"sheet {sheet.title}"
    table: list[list[str]] = []
    first = cells = gap = 0
    for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
        values = [_cell(value) for value in row]
        if any(values):
            first = first if table else number
            table.append(values)
            cells += len(values)
            gap = 0
        else:
            gap += 1
            _add_sheet_table(parts, table, place, first)
            table = []
        if number % 1000 == 0:
            reading.alive()
        if cells > _MOST_CELLS or gap > _MOST_GAP_ROWS:
            break
    _add_sheet_table(parts, table, place, first)
    return cells > _MOST_CELLS


def _add_sheet_table(parts: Parts, table: list[list[str]], place: str, first_row: int) -> None:
    if not table:
        return
    left = min(next(i for i, cell in enumerate(row) if cell) for row in table)
    rows = [row[left:] for row in table]
    if all(sum(1 for cell in row if cell) == 1 and row[0] for row in rows):
        parts.add("\n\n".join(row[0] for row in rows), place)  # a title or a remark, not a table
    else:
        add_table(parts, rows, place, first_row)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.10g}"
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(sep=" ", timespec="minutes")
    return re.sub(r"\s+", " ", str(value)).strip()
