"""Markdown and plain text. The text stays as written, less what only a renderer needs; soft line breaks of Markdown are joined."""

import re
from pathlib import Path

from mygpt.artifacts.sentences import blocks, heading_title
from mygpt.data.passages import heading_places
from mygpt.data.readers.conversion import Converted, Reading, clean
from mygpt.data.readers.encoding import read_text

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title[ \t]*:[ \t]*[\"']?(.*?)[\"']?[ \t]*$", re.MULTILINE)
_CODE = re.compile(r"(?ms)^[ \t]*(`{3,}|~{3,})[^\n]*\n.*?(?:^[ \t]*\1[`~]*[ \t]*$|\Z)|(`+)[^`]+?\2")
_NOTE = re.compile(r'(?m)^([ \t]*)(?:!!!|\?\?\?\+?)[ \t]+([\w-]+)(?:[ \t]+"([^"\n]*)")?[ \t]*\n[ \t]*')  # `!!! warning "Title"` of MkDocs
_DIRECTIVE = re.compile(r"(?m)^:::.*(?:\n[ \t]+\S.*)*")  # a page generator fills these in
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_HEADING_TAG = re.compile(r"<h([1-6])\b[^>]*>(.*?)</h\1\s*>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9-]*(?:\s+[a-zA-Z_:][^<>]*)?/?>")
_IMAGE = re.compile(r"!\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_RELATIVE_LINK = re.compile(r"\[([^\[\]]+)\]\((?![a-z][a-z0-9+.-]*:)[^()\s]*(?:\([^()]*\)[^()\s]*)?(?:\s+\"[^\"]*\")?\)", re.IGNORECASE)


def read_markdown(file: Path, reading: Reading) -> Converted:
    text = read_text(file).replace("\r\n", "\n").replace("\r", "\n")
    title = ""
    if front := _FRONT_MATTER.match(text):
        named = _FRONT_TITLE.search(front.group(1))
        title, text = named.group(1) if named else "", text[front.end() :]
    text = unwrap(clean(_outside_code(text)))
    return Converted(text, title or first_heading(text), heading_places(text))


def read_plain(file: Path, reading: Reading) -> Converted:
    text = clean(read_text(file))
    return Converted(text, first_heading(text), heading_places(text))


def first_heading(text: str) -> str:
    """The first heading of the highest level that occurs."""
    headings = [block for block in blocks(text) if block.kind == "heading"]
    highest = min((h.level for h in headings), default=0)
    return next((heading_title(text, h) for h in headings if h.level == highest), "")


def unwrap(text: str) -> str:
    """Lines of one Markdown paragraph joined, as a renderer would show them, underlined headings as `#` ones, no rules.

    A hard break (`\\` at the line's end) stays a line break.
    """
    pieces: list[str] = []
    at = 0
    for block in blocks(text):
        piece = text[block.start : block.end]
        if block.kind == "heading" and block.body == block.start:
            piece = f"{'#' * block.level} {piece}"
        elif block.kind in ("paragraph", "item"):
            piece = re.sub(r"(?<!\\)\n[ \t]*(?:>[ \t]?)*(?=\S)", " ", piece).replace("\\\n", "\n")
        gap = text[at : block.start]
        if pieces:
            pieces.append("\n\n" if gap.strip(" \t") != "\n" else "\n")
        pieces += [gap[len(gap.rstrip(" \t")) :], piece]  # the indent of a nested item
        at = block.end
    return "".join(pieces)


def _outside_code(text: str) -> str:
    pieces, at = [], 0
    for code in _CODE.finditer(text):
        pieces += [_without_markup(text[at : code.start()]), code.group()]
        at = code.end()
    return "".join(pieces) + _without_markup(text[at:])


def _without_markup(text: str) -> str:
    """HTML tags, comments and pictures go; their words stay. Links that lead nowhere outside their folder become their words."""
    text = _DIRECTIVE.sub("", _COMMENT.sub("", text))
    text = _NOTE.sub(lambda m: f"{m.group(1)}{m.group(3) or m.group(2).capitalize()}: ", text)
    text = _HEADING_TAG.sub(lambda m: f"\n{'#' * int(m.group(1))} {' '.join(_TAG.sub(' ', m.group(2)).split())}\n", text)
    text = re.sub(r"(?i)<br\s*/?>[ \t]*\n?|(?<=\S) {2,}\n", "\\\\\n", text)
    text = _RELATIVE_LINK.sub(r"\1", _IMAGE.sub(r"\1", text))
    text = re.sub(r"\[\s*\]\([^)]*\)", "", _TAG.sub("", text))
    return re.sub(r"(?m)^[ \t]+$", "", text)
