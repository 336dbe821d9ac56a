"""What every reader takes and gives: a file, and its text with the places it came from."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mygpt.data.readers.ocr import Tesseract


@dataclass(frozen=True)
class Converted:
    text: str
    title: str = ""  # "" when the file names none
    places: tuple[tuple[int, str], ...] = ()
    notes: tuple[str, ...] = ()  # what was left out: "3 of 100 lines are not JSON objects"


@dataclass(frozen=True)
class Reading:
    """How to read: the OCR program, if any, and a sign of life to give between pages (a reader that goes silent is stopped)."""

    ocr: Tesseract | None = None
    alive: Callable[[], None] = lambda: None


Reader = Callable[[Path, Reading], Converted]


class Unreadable(Exception):
    """A file that gives no text: the stable reason, what was found, and what the user can do."""

    def __init__(self, reason: str, detail: str, fix: str):
        super().__init__(reason, detail, fix)
        self.reason, self.detail, self.fix = reason, detail, fix


@dataclass
class Parts:
    """Text put together from pages, slides or sheets, with the offset at which each begins."""

    text: str = ""
    places: list[tuple[int, str]] = field(default_factory=list)
    _pieces: list[str] = field(default_factory=list)
    _length: int = 0

    def add(self, piece: str, place: str) -> None:
        piece = clean(piece)
        if not piece:
            return
        if self._pieces:
            self._append("\n\n")
        if not self.places or self.places[-1][1] != place:
            self.places.append((self._length, place))
        self._append(piece)

    def _append(self, piece: str) -> None:
        self._pieces.append(piece)
        self._length += len(piece)

    def converted(self, *, title: str = "", notes: tuple[str, ...] = ()) -> Converted:
        return Converted("".join(self._pieces), title, tuple(self.places), notes)


_LINE_ENDS = re.compile(r"\r\n?|\u2028|\u2029|\x85|\f|\v")
_SPACES = re.compile(r"[\xa0\u2000-\u200a\u202f\u205f]")
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad]|[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ufffe\uffff]"
)
_SURROGATES = re.compile(r"[\ud800-\udfff]")


def clean(text: str) -> str:
    """One kind of line end and space, nothing invisible (soft hyphens, directional overrides, controls), at most one blank line."""
    text = _LINE_ENDS.sub("\n", text)
    text = _INVISIBLE.sub("", _SPACES.sub(" ", text))
    text = _SURROGATES.sub("\ufffd", text)
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n").rstrip()
