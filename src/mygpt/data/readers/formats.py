"""Which reader reads which file: by the name's ending, and by the first bytes where there is none or it lies."""

import importlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mygpt.data.readers.conversion import Converted, Reader, Reading, Unreadable


@dataclass(frozen=True)
class Format:
    name: str
    version: int  # raise it when the reader gives other text for the same file: stored conversions are then made anew
    reader: str  # module:function below mygpt.data.readers
    media_type: str
    endings: tuple[str, ...]
    isolated: bool  # read in a child process: its parser is not ours, and the file may have been made to break it


_OFFICE = "application/vnd.openxmlformats-officedocument"
FORMATS = (
    Format("markdown", 1, "text:read_markdown", "text/markdown", (".md", ".markdown", ".mdx"), False),
    Format("plain", 1, "text:read_plain", "text/plain", (".txt", ".text", ".rst", ".log", ".adoc", ".org"), False),
    Format("csv", 1, "tables:read_csv", "text/csv", (".csv", ".tsv"), False),
    Format("jsonl", 1, "tables:read_jsonl", "application/jsonl", (".jsonl", ".ndjson"), False),
    Format("html", 1, "html:read_html", "text/html", (".html", ".htm", ".xhtml"), True),
    Format("pdf", 1, "pdf:read_pdf", "application/pdf", (".pdf",), True),
    Format("docx", 1, "office:read_docx", f"{_OFFICE}.wordprocessingml.document", (".docx", ".docm"), True),
    Format("pptx", 1, "office:read_pptx", f"{_OFFICE}.presentationml.presentation", (".pptx", ".pptm"), True),
    Format("xlsx", 1, "office:read_xlsx", f"{_OFFICE}.spreadsheetml.sheet", (".xlsx", ".xlsm"), True),
    Format("epub", 1, "epub:read_epub", "application/epub+zip", (".epub",), True),
)
_BY_ENDING = {ending: form for form in FORMATS for ending in form.endings}
_BY_NAME = {form.name: form for form in FORMATS}
_SAVE_AS = {
    ".doc": ".docx",
    ".odt": ".docx",
    ".rtf": ".docx",
    ".pages": ".docx",
    ".ppt": ".pptx",
    ".odp": ".pptx",
    ".key": ".pptx",
    ".xls": ".xlsx",
    ".ods": ".xlsx",
    ".numbers": ".xlsx",
    ".json": ".jsonl",
    ".mobi": ".epub",
    ".djvu": ".pdf",
    ".ps": ".pdf",
}


def format_of(file: Path) -> Format:
    """Raises Unreadable("unsupported") with what to save the file as."""
    ending = file.suffix.lower()
    with open(file, "rb") as opened:
        head = opened.read(1024)
    if head.lstrip().startswith(b"%PDF-"):
        return _BY_NAME["pdf"]
    if ending in _BY_ENDING:
        return _BY_ENDING[ending]
    if not ending:
        return _BY_NAME["plain"]  # README, LICENSE; a binary one is found out when it is read
    target = _SAVE_AS.get(ending)
    fix = f"Save it as {target}." if target else f"Readable are {', '.join(sorted(_BY_ENDING))}."
    raise Unreadable("unsupported", f"Files with the ending {ending} are not read.", fix)


def read(name: str, file: Path, reading: Reading) -> Converted:
    """The text of `file` by the reader of the format `name`. Raises Unreadable, whatever the parser raised."""
    module, function = _BY_NAME[name].reader.split(":")
    reader: Reader = getattr(importlib.import_module(f"mygpt.data.readers.{module}"), function)
    try:
        converted = reader(file, reading)
    except Unreadable:
        raise
    except MemoryError as error:
        raise Unreadable("too large", "Reading it needs more memory than one file is given.", "Split it into smaller files.") from error
    except ModuleNotFoundError as error:
        fix = "Install it with `pip install 'mygpt[data]'`."
        raise Unreadable("no reader", f"Reading it needs the package {error.name}.", fix) from error
    except OSError as error:
        raise Unreadable("unreadable", f"{error.strerror or error}.", "Check its permissions, or copy it anew.") from error
    except subprocess.SubprocessError as error:
        raise Unreadable("corrupt", f"{error}.", "Open it in its program and save it again.") from error
    except Exception as error:  # third-party parsers raise anything on damaged files
        what = " ".join(str(error).split())[:200] or "no details"
        detail = f"Its parser stopped: {type(error).__name__}: {what}."
        raise Unreadable("corrupt", detail, "Open it in its program and save it again.") from error
    if not converted.text.strip():
        raise Unreadable("no text", "There is no text in it.", "Nothing to do, or export it again with text.")
    return converted
