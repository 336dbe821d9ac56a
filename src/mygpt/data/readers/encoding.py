"""Bytes to text: UTF-8 first, then what the bytes say of themselves, then a guess; binary files are named as such."""

import codecs
import re
from pathlib import Path

from mygpt.data.language import detect_language
from mygpt.data.readers.conversion import Unreadable

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_.:-]+)""")
_SAMPLE_BYTES = 200_000
_PAGES = {"cp1250": ("pl", "cs", "sk", "hu", "sl", "hr", "bs", "ro", "sq"), "cp1254": ("tr", "az"), "cp1257": ("lt", "lv", "et")}
_MOST_CONTROLS = 0.02  # share of control characters above which a file is no text


def read_text(file: Path, *, declared: bool = False) -> str:
    """The text of `file`. Raises Unreadable("binary"). `declared`: believe a charset named in its first kilobytes (HTML, XML)."""
    data = file.read_bytes()
    text = decode(data, declared=declared)
    if text is None:
        raise Unreadable("binary", "The name says text, the content is not.", "Give it the ending of its real format, or leave it out.")
    return text


def decode(data: bytes, *, declared: bool = False) -> str | None:
    """None when `data` is not text in any encoding that is known here."""
    encodings = [name for mark, name in _MARKS if data.startswith(mark)][:1]
    if not encodings and declared and (match := _DECLARED.search(data[:4096])):
        encodings = [match.group(1).decode("ascii")]
    encodings += ["utf-8"]
    encodings += _wide(data[:_SAMPLE_BYTES])
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except (UnicodeDecodeError, LookupError, ValueError):
            continue
        if _is_text(text):
            return text
    if b"\x00" in data[:_SAMPLE_BYTES]:
        return None
    text = data.decode(_guess(data[:_SAMPLE_BYTES]), "replace")
    return text if _is_text(text) else None


def _is_text(text: str) -> bool:
    sample = text[:_SAMPLE_BYTES]
    return len(_CONTROLS.findall(sample)) <= _MOST_CONTROLS * len(sample) and "\x00" not in sample


def _wide(sample: bytes) -> list[str]:
    """UTF-16 without its mark: every other byte of Latin text is zero."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    half = max(len(sample) // 2, 1)
    if odd / half > 0.4 and even / half < 0.1:
        return ["utf-16-le"]
    if even / half > 0.4 and odd / half < 0.1:
        return ["utf-16-be"]
    return []


def _guess(sample: bytes) -> str:
    """A legacy encoding. Mostly ASCII letters: a Western or Central European page, by language; else by the bytes' statistics."""
    high, letters = sum(byte > 0x7F for byte in sample), sum(chr(byte).isalpha() for byte in sample if byte < 0x80)
    if high <= 0.35 * (high + letters):
        language = detect_language(sample.decode("cp1252", "replace"))
        page = next((page for page, languages in _PAGES.items() if language in languages), "cp1252")
        is_iso = page == "cp1250" and not any(0x80 <= byte <= 0x9F for byte in sample)
        return "iso8859-2" if is_iso else page
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    return best.encoding if best is not None else "cp1252"
