"""PDF: the text layer of each page through pypdfium2; pages without one through tesseract where it is installed.

Text keeps pdfium's reading order. What a page is, is said by the places ("page 3"); a sentence that runs over a page's end counts
to the page it begins on.
"""

import io
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from mygpt.artifacts.sentences import split_sentences
from mygpt.data.readers.conversion import Converted, Parts, Reading, Unreadable, clean
from mygpt.data.readers.pdf_layout import Line, body_height, paragraphs, repeated_lines, vocabulary
from mygpt.data.readers.text import first_heading

_PRINT_AGAIN = "Open it in a PDF viewer and save or print it to PDF again."
_OCR_DPI = 300
_FEWEST_CHARACTERS = 12  # of text on a page that also has a picture, below which the page counts as scanned
_LONGEST_OVERHANG = 400  # characters


def read_pdf(file: Path, reading: Reading) -> Converted:
    import pypdfium2
    import pypdfium2.raw as pdfium

    try:
        document = pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pdfium.FPDF_ERR_PASSWORD:
            fix = "Save a copy without the password (print it to PDF) and run again."
            raise Unreadable("encrypted", "It opens with a password only.", fix) from error
        raise Unreadable("corrupt", f"It cannot be opened: {str(error).rstrip('.')}.", _PRINT_AGAIN) from error
    with document:
        if document.get_formtype() != pdfium.FORMTYPE_NONE:
            document.init_forms()
        pages, scanned, broken = _read_pages(document, reading)
        title = " ".join((document.get_metadata_value("Title") or "").split())
    ocr_pages = [text for _, text in scanned if text]
    if not any(pages) and not ocr_pages:
        _nothing(len(scanned), broken, len(pages), reading)
    parts = _joined(pages, dict(scanned))
    unread = len(scanned) - len(ocr_pages)
    notes = [f"{unread} of {len(pages)} pages are scanned and not read (install tesseract)"] if unread else []
    notes += [f"{broken} of {len(pages)} pages are damaged"] if broken else []
    converted = parts.converted(notes=tuple(notes))
    named = "" if "." in title[-6:] else title  # "report.docx" is no title
    return replace(converted, title=named or first_heading(converted.text))


def _nothing(scanned: int, broken: int, pages: int, reading: Reading) -> None:
    if scanned and reading.ocr is None:
        fix = "Install tesseract (Debian: `apt install tesseract-ocr` and the packages of your languages) and run again."
        raise Unreadable("scanned", f"Scanned, no text: its {pages} pages are pictures.", fix)
    if scanned:
        raise Unreadable("scanned", f"Scanned, and tesseract found no text on its {pages} pages.", "Scan it again at 300 dpi, or type it.")
    if broken:
        raise Unreadable("corrupt", f"None of its {pages} pages can be read.", _PRINT_AGAIN)
    raise Unreadable("no text", f"Its {pages} pages are empty.", "Nothing to do, or export it again with text.")


def _read_pages(document: Any, reading: Reading) -> tuple[list[list[Line]], list[tuple[int, str]], int]:
    """Lines per page; (page index, OCR text or "") of the scanned ones; how many pages are damaged."""
    import pypdfium2

    pages: list[list[Line]] = []
    scanned, broken = [], 0
    for index in range(len(document)):
        reading.alive()
        lines: list[Line] = []
        try:
            page = document[index]
            if document.formenv:
                page.flatten()  # what was filled in becomes text
            lines = _lines(page)
            if sum(len(line.text) for line in lines) < _FEWEST_CHARACTERS and _has_picture(page):
                scanned.append((index, _recognised(page, reading)))
                lines = []
            page.close()
        except pypdfium2.PdfiumError:
            broken += 1
        pages.append(lines)
    return pages, scanned, broken


def _lines(page: Any) -> list[Line]:
    """The lines of a page in reading order, each with its box. A line that ends in a soft hyphen runs on into the next."""
    import pypdfium2.raw as pdfium

    text_page = page.get_textpage()
    try:
        raw = text_page.get_text_range()
        lines, at = [], 0
        for text in raw.split("\r\n"):
            if text.strip():
                first = at + len(text) - len(text.lstrip())
                last = at + len(text.rstrip()) - 1
                opening, closing = (text_page.get_charbox(_char(pdfium, text_page, i), loose=True) for i in (first, last))
                words = " ".join(text.replace("\ufffe", "").split())
                (left, foot, _, top), (_, bottom, right, _) = opening, closing
                lines.append(Line(words, left=left, right=right, top=top, bottom=bottom, height=top - foot))
            at += len(text) + 2
        return lines
    finally:
        text_page.close()


def _char(pdfium: Any, text_page: Any, text_index: int) -> int:
    return min(max(pdfium.FPDFText_GetCharIndexFromTextIndex(text_page.raw, text_index), 0), text_page.count_chars() - 1)


def _has_picture(page: Any) -> bool:
    import pypdfium2.raw as pdfium

    return next(page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_IMAGE], max_depth=3), None) is not None


def _recognised(page: Any, reading: Reading) -> str:
    if reading.ocr is None:
        return ""
    picture = io.BytesIO()
    scale = min(_OCR_DPI / 72, 8000 / max(*page.get_size(), 1))  # no page, however large it says it is, becomes a huge bitmap
    page.render(scale=scale, grayscale=True).to_pil().save(picture, "PNG")
    try:
        return clean(reading.ocr.read(picture.getvalue()))
    except (OSError, subprocess.SubprocessError):
        return ""


def _joined(pages: list[list[Line]], recognised: dict[int, str]) -> Parts:
    headers = repeated_lines(pages)
    body = body_height(pages)
    words = vocabulary(pages)
    texts = []
    for index, lines in enumerate(pages):
        kept = [line for i, line in enumerate(lines) if (index, i) not in headers]
        texts.append("\n\n".join(paragraphs(kept, body, words)) or recognised.get(index, ""))
    parts = Parts()
    for index, text in enumerate(texts):
        if index + 1 < len(texts):
            text, texts[index + 1] = _finish_sentence(clean(text), clean(texts[index + 1]))
        parts.add(text, f"page {index + 1}")
    return parts


def _finish_sentence(text: str, following: str) -> tuple[str, str]:
    """Take the end of a sentence that breaks off at the foot of a page over from the head of the next."""
    last_line = text.rsplit("\n", 1)[-1]
    if not text or last_line.startswith(("#", "|")) or text[-1] in '.!?:;…"”»)' or not following[:1].islower():
        return text, following
    paragraph = following.split("\n\n", 1)[0]
    end = next((end for _, end in split_sentences(paragraph)), 0)
    if not 0 < end <= _LONGEST_OVERHANG:
        return text, following
    joint = text[:-1] + paragraph[:end] if text.endswith("-") and text[-2:-1].isalpha() else f"{text} {paragraph[:end]}"
    return joint, following[end:].lstrip()
