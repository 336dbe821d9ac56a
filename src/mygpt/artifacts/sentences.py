"""Text in pieces: the blocks of a Markdown-like text, and sentences as character ranges.

    blocks(text)          -> headings, code, tables, list items, paragraphs, in order
    split_sentences(text) -> [(start, end), ...]: text[start:end] is one sentence, heading, table row or code block

Ranges are trimmed, in order and never overlap; list markers and table rules lie between them.

Source: the rules of thumb of T. Kiss, J. Strunk, "Unsupervised Multilingual Sentence Boundary Detection", Computational
        Linguistics 32(4), 2006 (abbreviations, initials, ordinal numbers).
We differ: a fixed list of abbreviations instead of a trained one, and Markdown structure (code, tables, lists, links) is respected.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["heading", "code", "table", "item", "paragraph"]


@dataclass(frozen=True)
class Block:
    """`text[start:end]`, trimmed, is one block. `body` is where its words begin (after `#`, `-`, `1.` or `>`)."""

    kind: Kind
    start: int
    end: int
    body: int
    level: int = 0  # of a heading, 1 is the highest


_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})")
_ATX = re.compile(r"[ ]{0,3}(#{1,6})[ \t]+(?=\S)")
_UNDERLINE = re.compile(r"[ ]{0,3}(={2,}|-{2,}|~{3,}|\^{3,})[ \t]*$")
_RULE = re.compile(r"[ ]{0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$")
_ITEM = re.compile(r"[ \t]*(?:[-*+•‣◦▪–]|\d{1,3}[.)]|[a-zA-Z][)])[ \t]+(?=\S)")
_QUOTE = re.compile(r"[ \t]*(?:>[ \t]?)+")
_INDENT = re.compile(r"(?: {4}|\t)")
_TABLE_RULE = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-*:?[ \t]*)*$")
_UNDERLINE_LEVELS = {"=": 1, "-": 2, "~": 3, "^": 4}


def blocks(text: str) -> list[Block]:
    """The blocks of `text`, in order. Rules (`---`) and blank lines belong to none."""
    found: list[Block] = []
    lines = _lines(text)
    at = 0
    while at < len(lines):
        start, end = lines[at]
        line = text[start:end]
        if not line.strip():
            at += 1
        elif fence := _FENCE.match(line):
            after = range(at + 1, len(lines))
            closing = next((i for i in after if _closes(text[lines[i][0] : lines[i][1]], fence.group(1))), len(lines) - 1)
            found.append(_trimmed(text, "code", start, lines[closing][1]))
            at = closing + 1
        elif atx := _ATX.match(line):
            found.append(_trimmed(text, "heading", start, end, body=start + atx.end(), level=len(atx.group(1))))
            at += 1
        elif line.lstrip().startswith("|"):
            at = _extent(text, lines, at, lambda following: following.lstrip().startswith("|"))
            found.append(_trimmed(text, "table", start, lines[at - 1][1]))
        elif _RULE.match(line):
            at += 1
        elif _INDENT.match(line) and not (found and found[-1].kind == "item"):
            at = _extent(text, lines, at, lambda following: bool(_INDENT.match(following)) and bool(following.strip()))
            found.append(_trimmed(text, "code", start, lines[at - 1][1]))
        else:
            at = _prose(text, lines, at, found)
    return found


def _lines(text: str) -> list[tuple[int, int]]:
    starts = [0, *(m.end() for m in re.finditer("\n", text))]
    return [(start, after - 1) for start, after in zip(starts, [*starts[1:], len(text) + 1], strict=True)]


def _prose(text: str, lines: list[tuple[int, int]], at: int, found: list[Block]) -> int:
    """Append the paragraph, list item or underlined heading that begins at line `at`; returns the line after it."""
    start, end = lines[at]
    marker = _ITEM.match(text, start, end)
    underline = _UNDERLINE.match(text, *lines[at + 1]) if at + 1 < len(lines) and not marker else None
    if underline and len(text[start:end].split()) <= 20:
        found.append(_trimmed(text, "heading", start, end, level=_UNDERLINE_LEVELS[underline.group(1)[0]]))
        return at + 2
    after = _extent(text, lines, at, _continues)
    underline = _UNDERLINE.match(text, *lines[after]) if after < len(lines) and after - at > 1 and not marker else None
    if underline and not _RULE.match(text, *lines[after]):
        after -= 1  # the last line is the heading of what follows
    quote = _QUOTE.match(text, start, end)
    body = marker.end() if marker else quote.end() if quote else None
    found.append(_trimmed(text, "item" if marker else "paragraph", start, lines[after - 1][1], body=body))
    return after


def _continues(line: str) -> bool:
    stripped = line.lstrip()
    return bool(stripped) and stripped[0] != "|" and not any(begins.match(line) for begins in (_FENCE, _ATX, _ITEM, _RULE, _UNDERLINE))


def _extent(text: str, lines: list[tuple[int, int]], at: int, belongs: Callable[[str], bool]) -> int:
    after = at + 1
    while after < len(lines) and belongs(text[lines[after][0] : lines[after][1]]):
        after += 1
    return after


def _closes(line: str, fence: str) -> bool:
    stripped = line.strip()
    return len(stripped) >= len(fence) and set(stripped) == {fence[0]}


def _trimmed(text: str, kind: Kind, start: int, end: int, *, body: int | None = None, level: int = 0) -> Block:
    while end > start and text[end - 1].isspace():
        end -= 1
    while start < end and text[start].isspace():
        start += 1
    return Block(kind, start, end, body=start if body is None else body, level=level)


def heading_title(text: str, heading: Block) -> str:
    """The words of a heading, without its Markdown."""
    title = text[heading.body : heading.end]
    title = re.sub(r"\s+#+\s*$|\s*\{[#:.][^}]*\}\s*$", "", title)
    title = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", title)
    return " ".join(re.sub(r"[`*]+|(?<!\w)_+|_+(?!\w)", "", title).split())


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Character ranges of the sentences of `text`. A heading, a code block and a table row count as one sentence each."""
    found: list[tuple[int, int]] = []
    for block in blocks(text):
        if block.kind == "code":
            found.append((block.start, block.end))
        elif block.kind == "heading":
            found.append((block.body, block.end))
        elif block.kind == "table":
            found.extend(_rows(text, block.start, block.end))
        else:
            found.extend(_sentences(text, block.body, block.end))
    return found


def table_rows(text: str, block: Block) -> list[tuple[int, int]]:
    """Ranges of the rows of a table block, without the rule below its header."""
    return list(_rows(text, block.start, block.end))


def _rows(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for line in re.finditer(r"[^\n]+", text[start:end]):
        if line.group().strip() and not _TABLE_RULE.match(line.group()):
            row = _trimmed(text, "table", start + line.start(), start + line.end())
            yield row.start, row.end


# Where a sentence may end: a terminator (with closing quotes or brackets) before white space, or a CJK one anywhere.
_END = re.compile(r"""(?P<mark>[.!?…]+|[।॥؟۔።]+)["'”’»)\]*_]*(?=\s)|[。！？]+[」』”’）]*""")
_MASKED = re.compile(r"`+[^`]+`+|!?\[[^\]\n]{0,200}\]\([^)\s]{0,500}\)")
_LAST_TOKEN = re.compile(r"[^\s(\[{\"'“‘«/]*\Z")
_FOLLOWING = re.compile(r"\s+(?:>[ \t]*)*(\S+)")
_NEVER_END = frozenset(
    """e.g i.e eg ie dr mr mrs ms prof rev hon gen col capt lt sgt sen rep st mt vs cf viz approx resp incl excl ca dept est
    misc z.b d.h u.a u.u s.o s.u bzw vgl evtl ggf sog zzgl inkl exkl abb hr dipl ing tel nr mme mlle p.ex c.-à-d sr sra srta
    dra ej p.ej sig dott ing fig figs eq eqs tab al""".split()  # noqa: SIM905
)
_BEFORE_NUMBER = frozenset(
    """no nos nr num art sec sect par p pp s vol ch chap ver v bd kap abs ref refs ex jan feb mar apr jun jul aug sep sept oct
    nov dec""".split()  # noqa: SIM905
)
_STARTERS = frozenset(
    """The This That These Those It He She They We You If In On At A An But And So However When For To There Its""".split()  # noqa: SIM905
)


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    masked = [(m.start(), m.end()) for m in _MASKED.finditer(text, start, end)]
    begin = start
    for candidate in _END.finditer(text, start, end):
        if candidate.end() >= end or any(a < candidate.end() - 1 < b - 1 for a, b in masked):
            continue
        if candidate.group("mark") and not _ends_sentence(text, begin, candidate, end):
            continue
        piece = _trimmed(text, "paragraph", begin, candidate.end())
        if piece.start < piece.end:
            yield piece.start, piece.end
        begin = candidate.end()
    rest = _trimmed(text, "paragraph", begin, end)
    if rest.start < rest.end:
        yield rest.start, rest.end


def _ends_sentence(text: str, begin: int, candidate: re.Match[str], end: int) -> bool:
    following = _FOLLOWING.match(text, candidate.end(), end)
    if following is None:
        return False
    after = following.group(1)
    opened = after.lstrip("\"'“‘«([*_¿¡")
    if candidate.group("mark") != ".":
        return not opened[:1].islower()
    token = _LAST_TOKEN.search(text[max(begin, candidate.start() - 60) : candidate.start()])
    word = token.group() if token else ""
    if not text[begin : candidate.start()].strip() or (word.isdigit() and text[begin : candidate.start()].strip() == word):
        return False  # "1." opens an enumeration
    if word.lower() in _NEVER_END:
        return False
    if word.lower() in _BEFORE_NUMBER and opened[:1].isdigit():
        return False
    first = re.match(r"[^\W\d_]+", opened)
    if (len(word) == 1 and word.isupper() and word != "I") or re.fullmatch(r"(?:[^\W\d_]\.)+[^\W\d_]", word):
        return first is not None and first.group() in _STARTERS  # initials, "U.S.", "a.m."
    if opened[:1].islower():
        return bool(re.search(r"[._(`]\w|\w[A-Z]|::|/", opened.rstrip(".,;:!?")))  # a name that is spelt that way: `httpx.get`, iPhone
    return True
