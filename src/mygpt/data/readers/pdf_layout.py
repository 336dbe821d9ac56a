"""From the lines of a page to paragraphs: by gaps, indents, margins and letter heights.

A line was broken on purpose when the first word of the next line would still have fitted on it: then the break is kept (table rows,
addresses, code); otherwise the lines are one paragraph and the hyphen at the break goes, unless the document also writes the word
with it.
"""

import itertools
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

HEADING_RATIO = 1.22  # height of a heading to that of the body text
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_LIST_MARK = re.compile(r"(?:[•‣◦▪●○■□–—*-]|\d{1,2}[.)]|\(?[a-z][.)])\s+\S")
_PAGE_NUMBER = re.compile(r"(?:page|seite|p\.)?\s*[-–]?\s*(?:\d{1,4}|[ivxl]{1,6})\s*(?:(?:/|of|von)\s*\d{1,4})?\s*[-–]?", re.IGNORECASE)
_NEIGHBOURS = 4  # lines above and below that say where the margin of a column is


@dataclass(frozen=True)
class Line:
    """One line of text; positions in points, from the left and from the bottom of the page."""

    text: str
    left: float
    right: float
    top: float  # of its first character
    bottom: float  # of its last character: lower than `top` by more than a line where pdfium joined hyphenated lines
    height: float


def body_height(pages: Sequence[Sequence[Line]]) -> float:
    """The letter height that most characters have."""
    heights: Counter[float] = Counter()
    for line in (line for lines in pages for line in lines):
        heights[round(line.height, 1)] += len(line.text)
    return heights.most_common(1)[0][0] if heights else 0.0


def vocabulary(pages: Sequence[Sequence[Line]]) -> Counter[str]:
    return Counter(word.lower() for lines in pages for line in lines for word in _WORD.findall(line.text))


def repeated_lines(pages: Sequence[Sequence[Line]]) -> set[tuple[int, int]]:
    """(page, line) of running headers, footers and page numbers: the outermost lines that most pages share but for digits."""
    outer: list[tuple[int, int, str]] = []
    for page, lines in enumerate(pages):
        by_height = sorted(range(len(lines)), key=lambda i: -lines[i].top)
        for i in dict.fromkeys([*by_height[:2], *by_height[-2:]]):
            outer.append((page, i, re.sub(r"\d+", "0", lines[i].text.lower())))
    alike = Counter(text for _, _, text in outer)
    written = sum(1 for lines in pages if lines)
    shared = {text for text, times in alike.items() if times >= 3 and times >= 0.6 * written}
    found = {(page, i) for page, i, text in outer if text in shared}
    for page, lines in enumerate(pages):
        if len(lines) > 1:
            for i in (max(range(len(lines)), key=lambda i: lines[i].top), min(range(len(lines)), key=lambda i: lines[i].top)):
                if _PAGE_NUMBER.fullmatch(lines[i].text):
                    found.add((page, i))
    return found


def paragraphs(lines: Sequence[Line], body: float, words: Counter[str]) -> list[str]:
    """Paragraphs in reading order; a line in clearly larger letters is a heading."""
    if not lines:
        return []
    pitch = _pitch(lines)
    found: list[str] = []
    text = lines[0].text
    heading = _is_heading(lines[0], body)
    for i, (line, following) in enumerate(itertools.pairwise(lines)):
        next_heading = _is_heading(following, body)
        broken = _broken_on_purpose(lines, i)
        if _new_paragraph(line, following, pitch, broken) or heading != next_heading:
            found.append(f"## {text}" if heading else text)
            text = following.text
        elif broken and not heading:
            text = f"{text}\n{following.text}"
        else:
            text = _join(text, following.text, words)
        heading = next_heading
    found.append(f"## {text}" if heading else text)
    return found


def _is_heading(line: Line, body: float) -> bool:
    return line.height >= HEADING_RATIO * body > 0 and len(line.text.split()) <= 15 and len(re.findall(r"[^\W\d_]", line.text)) >= 3


def _pitch(lines: Sequence[Line]) -> float:
    """The usual distance from one line to the next."""
    steps = [a.bottom - b.bottom for a, b in _single(lines) if 0 < a.bottom - b.bottom < 4 * max(a.height, 1)]
    return statistics.median(steps) if steps else 1.2 * max(line.height for line in lines)


def _single(lines: Sequence[Line]) -> Iterator[tuple[Line, Line]]:
    """Neighbours of which the lower is one line high, so that the distance of their feet is one step."""
    for a, b in itertools.pairwise(lines):
        if b.top - b.bottom < 1.5 * b.height:
            yield a, b


def _new_paragraph(line: Line, following: Line, pitch: float, broken: bool) -> bool:
    ended = line.text[-1] in '.!?:;…"”»)]'
    if following.top > line.bottom + 1.5 * line.height:  # up again: the next column, or a box
        return ended or not following.text[0].islower()
    step = (line.bottom - following.top) + following.height
    if step > 1.35 * pitch + 0.5 or abs(line.height - following.height) > 0.2 * max(line.height, 1):
        return True
    if _LIST_MARK.match(following.text) and (broken or _LIST_MARK.match(line.text)):
        return True
    indented = following.left - line.left
    if ended and 0.5 * line.height < indented < 5 * line.height and line.top - line.bottom < 1.5 * line.height:
        return True
    return ended and broken


def _broken_on_purpose(lines: Sequence[Line], i: int) -> bool:
    line, following = lines[i], lines[i + 1]
    column = [j for j, other in enumerate(lines) if abs(other.left - line.left) < 6 * max(line.height, 1)]
    near = [lines[j].right for j in column if abs(j - i) <= _NEIGHBOURS and _alike(lines[j], line)] or [line.right]
    # Justified text shares its right margin; ragged text, tables and code are measured against the widest line of the page.
    is_justified = sum(right > max(near) - 2 for right in near) > 1
    margin = max(near if is_justified else (lines[j].right for j in column))
    last_stretch = line.text if line.top - line.bottom < 1.5 * line.height else line.text[-60:]
    width = (line.right - line.left) / max(len(last_stretch), 1) if last_stretch == line.text else 0.5 * line.height
    first_word = following.text.split(" ", 1)[0]
    return line.right + width * (len(first_word) + 1) < margin - 0.5 * width


def _alike(a: Line, b: Line) -> bool:
    return abs(a.height - b.height) < 0.2 * b.height


def _join(text: str, following: str, words: Counter[str]) -> str:
    """Two lines of a paragraph, with the hyphen at the break taken out where it only marks the break."""
    if not (text.endswith("-") and text[-2:-1].isalpha() and following[:1].islower()):
        return f"{text} {following}"
    before, after = _WORD.findall(text[:-1]), _WORD.match(following)
    if not before or after is None:
        return text + following
    joined, hyphenated = (before[-1] + after.group()).lower(), f"{before[-1]}-{after.group()}".lower()
    return text + following if words[hyphenated] > words[joined] else text[:-1] + following
