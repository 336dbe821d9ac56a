"""Cutting a document's text into passages of about the same size, along its own structure.

A passage stays within one section (heading, page, sheet, slide), ends where a paragraph, list item, table row or sentence ends,
and keeps a code block whole where that fits. A heading opens the passage of its text; one without text joins what follows.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mygpt.artifacts.corpus import Document, Passage, Span
from mygpt.artifacts.sentences import Block, blocks, heading_title, split_sentences, table_rows
from mygpt.core.digest import digest_value

Places = Sequence[tuple[int, str]]

_RUN = re.compile(r"\S+")
_DENSE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # scripts without spaces: two characters count as a word
_LONG_RUN = 16  # characters: a longer run of non-space counts as several words


@dataclass(frozen=True)
class _Unit:
    """What a passage is packed from; it is only cut when it is too long by itself."""

    start: int
    end: int
    words: int
    kind: str


def num_words(text: str) -> int:
    """Words, with long unbroken runs and scripts without spaces counted by their length."""
    runs = text.split()
    long = sum(len(run) // _LONG_RUN for run in runs if len(run) >= _LONG_RUN)
    return len(runs) + long + (0 if text.isascii() else len(_DENSE.findall(text)) // 2)


def passages_of(document: Document, passage_words: int) -> list[Passage]:
    return [
        Passage(
            id=digest_value([document.id, start, end])[:16],
            span=Span(document.id, start, end, place),
            text=document.text[start:end],
            title=document.title,
            path=document.path,
        )
        for start, end, place in cut(document.text, document.places, passage_words)
    ]


def cut(text: str, places: Places, passage_words: int) -> list[tuple[int, int, str]]:
    """(start, end, place) of each passage, in order; together they cover every block of `text`."""
    found: list[tuple[int, int, str]] = []
    headings: list[_Unit] = []  # without text so far: they open the next passage
    place_at = _PlaceFinder(places)
    for section in _sections(text, [start for start, _ in places]):
        units = headings + section
        headings = [unit for unit in units if unit.kind == "heading"]
        if len(headings) == len(units):
            continue
        for group in _pack(text, units, passage_words):
            first_body = next((unit for unit in group if unit.kind != "heading"), group[-1])
            found.append((group[0].start, group[-1].end, place_at(first_body.start)))
        headings = []
    if headings:
        found.append((headings[0].start, headings[-1].end, place_at(headings[-1].start)))
    return found


def heading_places(text: str) -> tuple[tuple[int, str], ...]:
    """(offset, "Install > Linux") for every heading. A single top heading is the title and left out of the paths below it."""
    headings = [block for block in blocks(text) if block.kind == "heading"]
    top = [h for h in headings if h.level == 1]
    is_title = len(top) == 1 and headings[0] is top[0] and len(headings) > 1
    found, path = [], list[tuple[int, str]]()
    for heading in headings:
        path = [(level, title) for level, title in path if level < heading.level and not (is_title and level == 1)]
        path.append((heading.level, heading_title(text, heading)))
        found.append((heading.start, " > ".join(title for _, title in path if title)))
    return tuple(found)


class _PlaceFinder:
    """Offsets asked in rising order -> the place that holds there."""

    def __init__(self, places: Places):
        self._places = places
        self._at = 0

    def __call__(self, offset: int) -> str:
        while self._at < len(self._places) and self._places[self._at][0] <= offset:
            self._at += 1
        return self._places[self._at - 1][1] if self._at else ""


def _sections(text: str, boundaries: Sequence[int]) -> Iterator[list[_Unit]]:
    """Units between two boundaries: a heading, or the start of a page, sheet or slide. Blocks across a boundary are split."""
    section: list[_Unit] = []
    upcoming = iter(sorted(set(boundaries)))
    boundary = next(upcoming, None)
    for block in blocks(text):
        begins_section = block.kind == "heading"
        while boundary is not None and boundary <= block.start:
            begins_section, boundary = True, next(upcoming, None)
        if begins_section and section:
            yield section
            section = []
        start = block.start
        while boundary is not None and boundary < block.end:
            section.extend(_unit(text, start, boundary, block.kind))
            yield section
            section, start, boundary = [], boundary, next(upcoming, None)
        section.extend(_unit(text, start, block.end, block.kind))
    if section:
        yield section


def _unit(text: str, start: int, end: int, kind: str) -> Iterator[_Unit]:
    piece = text[start:end]
    if piece.strip():
        start += len(piece) - len(piece.lstrip())
        yield _Unit(start, start + len(piece.strip()), num_words(piece), kind)


def _pack(text: str, units: Iterable[_Unit], target: int) -> list[list[_Unit]]:
    """Groups of neighbouring units of about `target` words, at most 1.4 times that unless a unit cannot be cut."""
    most = int(target * 1.4)
    groups: list[list[_Unit]] = [[]]
    words = 0
    for unit in (piece for whole in units for piece in _pieces(text, whole, target, most)):
        group = groups[-1]
        has_body = any(u.kind != "heading" for u in group)
        if has_body and (words >= target or words + unit.words > most):
            opener = group[-1]
            leaves_body = any(u.kind != "heading" for u in group[:-1])
            introduces = text[opener.end - 1] == ":" and opener.words + unit.words <= most
            carried = [group.pop()] if introduces and leaves_body else []  # "The steps are:" stays with its steps
            groups.append(carried)
            words = sum(u.words for u in carried)
        groups[-1].append(unit)
        words += unit.words
    if len(groups) > 1:
        last, before = (sum(u.words for u in group) for group in (groups[-1], groups[-2]))
        if last < 0.3 * target and before + last <= 1.6 * target:
            groups[-2].extend(groups.pop())
    return groups


def _pieces(text: str, unit: _Unit, target: int, most: int) -> Iterator[_Unit]:
    """`unit` itself, or what it is made of (rows, lines, sentences, words) when it is longer than `most` words."""
    if unit.words <= most:
        yield unit
        return
    block = Block("table", unit.start, unit.end, unit.start)
    if unit.kind == "table":
        ranges = table_rows(text, block)
    elif unit.kind == "code":
        ranges = [(m.start(), m.end()) for m in re.finditer(r"[^\n]+", text[unit.start : unit.end])]
        ranges = [(unit.start + a, unit.start + b) for a, b in ranges]
    else:
        ranges = [(unit.start + a, unit.start + b) for a, b in split_sentences(text[unit.start : unit.end])]
    at = unit.start
    for _, end in [*ranges[:-1], (0, unit.end)]:  # each piece reaches from the end of the last: nothing falls between
        for piece in _unit(text, at, end, unit.kind):
            if piece.words > most:
                yield from _by_words(text, piece, target)
            else:
                yield piece
        at = end


def _by_words(text: str, unit: _Unit, target: int) -> Iterator[_Unit]:
    """Cut at white space, and a run without any (minified code, base64, Chinese) by characters, into pieces of `target` words."""
    start, words = unit.start, 0
    for run in _RUN.finditer(text, unit.start, unit.end):
        step = target * (2 if _DENSE.search(run.group()) else _LONG_RUN)
        for at in range(run.start(), run.end(), step):
            end = min(at + step, run.end())
            more = num_words(text[at:end])
            if words and words + more > target:
                yield from _unit(text, start, at, unit.kind)
                start, words = at, 0
            words += more
    yield from _unit(text, start, unit.end, unit.kind)
