"""HTML elements to Markdown: headings, paragraphs, lists, tables, code. Emphasis, pictures and scripts go; words and structure stay."""

import re
from collections.abc import Iterator
from typing import Any

from mygpt.data.readers.tables import markdown_table

_SKIPPED = frozenset(
    """script style noscript template svg math head iframe object embed canvas button select input textarea dialog""".split()  # noqa: SIM905
)
_BLOCKS = frozenset(
    """address article aside blockquote body center dd details div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5
    h6 header hgroup hr html li main nav ol p pre section summary table tbody td tfoot th thead tr ul""".split()  # noqa: SIM905
)
_DEEPEST = 150  # below this, only words are kept: no recursion that untrusted nesting could exhaust
_LINK = re.compile(r"https?://|mailto:", re.IGNORECASE)
_SPACE = re.compile(r"[ \t\r\n]+")


def to_markdown(element: Any) -> str:
    return "\n\n".join(_blocks(element, 0)).strip()


def _blocks(element: Any, depth: int) -> Iterator[str]:
    """Blocks below `element`. Text that lies loose between block elements becomes paragraphs."""
    if depth > _DEEPEST:
        if words := _squeeze(" ".join(element.itertext())):
            yield words
        return
    loose = [element.text or ""]
    for child in element:
        tag = _tag(child)
        if tag in _SKIPPED or not tag:
            loose.append(" ")
        elif tag in _BLOCKS or any(_tag(inner) in _BLOCKS for inner in child.iterdescendants()):
            yield from _paragraph(loose)
            yield from _block(child, tag, depth + 1)
            loose = []
        else:
            loose.append(_inline(child, depth + 1))
        loose.append(child.tail or "")
    yield from _paragraph(loose)


def _block(element: Any, tag: str, depth: int) -> Iterator[str]:
    if len(tag) == 2 and tag[0] == "h" and tag[1] in "123456":
        if title := _squeeze(_inline(element, depth)).replace("\n", " "):
            yield f"{'#' * int(tag[1])} {title}"
    elif tag == "pre":
        if code := "".join(element.itertext()).strip("\n"):
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", code)), default=0))
            yield f"{fence}\n{code}\n{fence}"
    elif tag == "table":
        yield from _table(element, depth)
    elif tag in ("ul", "ol"):
        if lines := list(_list(element, depth)):
            yield "\n".join(lines)
    elif tag == "hr":
        return
    elif tag == "dl":
        yield from _definitions(element, depth)
    else:
        yield from _blocks(element, depth)


def _list(element: Any, depth: int) -> Iterator[str]:
    number = 0
    for item in element:
        if _tag(item) in ("ul", "ol"):  # a list directly inside a list: not valid, but common
            yield from ("  " + line for line in _list(item, depth + 1))
        elif _tag(item) == "li":
            number += 1
            marker = f"{number}." if _tag(element) == "ol" else "-"
            parts = [part for part in _blocks(item, depth + 1) if part]
            lines = [line for i, part in enumerate(parts) for line in ([""] if i and part.startswith("`" * 3) else []) + part.split("\n")]
            for i, line in enumerate(lines):
                yield f"{marker} {line}" if i == 0 else f"{' ' * (len(marker) + 1)}{line}".rstrip()


def _definitions(element: Any, depth: int) -> Iterator[str]:
    term = ""
    for child in element:
        text = " ".join(_blocks(child, depth + 1)) if _tag(child) in ("dt", "dd", "div") else ""
        if _tag(child) == "dt":
            term = text
        elif text:
            yield f"{term}: {text}" if term else text
            term = ""
    if term:
        yield term


def _table(table: Any, depth: int) -> Iterator[str]:
    """A table of data, or the blocks of a table that only lays out the page (one column, or tables and headings inside)."""
    rows = [row for row in table.iterdescendants("tr") if _own_table(row) is table]
    holds_blocks = any(_tag(inner) in ("table", "h1", "h2", "h3", "pre") for inner in table.iterdescendants())
    if holds_blocks or max((len(row) for row in rows), default=0) < 2:
        yield from _blocks(table, depth)
        return
    for caption in table.findall("caption"):
        yield from _paragraph([_inline(caption, depth)])
    cells = [[" ".join(" ".join(_blocks(cell, depth + 1)).split()) for cell in row if _tag(cell) in ("td", "th")] for row in rows]
    if filled := [row for row in cells if any(row)]:
        yield markdown_table(filled)


def _own_table(row: Any) -> Any:
    return next((above for above in row.iterancestors("table")), None)


def _inline(element: Any, depth: int) -> str:
    tag = _tag(element)
    if tag in _SKIPPED or not tag:
        return ""
    if tag == "br":
        return "\\\n"  # kept as a line break by _paragraph
    if tag == "img":
        return element.get("alt") or ""
    if tag in ("code", "kbd", "samp", "tt"):
        code = " ".join("".join(element.itertext()).split())
        return f"`{code}`" if code and "`" not in code else code
    if depth > _DEEPEST:
        return " ".join(element.itertext())
    words = (element.text or "") + "".join(_inline(child, depth + 1) + (child.tail or "") for child in element)
    address = (element.get("href") or "").strip() if tag == "a" else ""
    label = _squeeze(words)
    if _LINK.match(address) and label and "\n" not in label and not re.search(r"[\s()<>]", address) and label != address:
        return f"[{label}]({address})"
    return words


def _paragraph(loose: list[str]) -> Iterator[str]:
    if words := _squeeze("".join(loose)):
        yield words


def _squeeze(words: str) -> str:
    """White space as a browser shows it; only `<br>` breaks a line."""
    lines = [_SPACE.sub(" ", line).strip() for line in words.split("\\\n")]
    return "\n".join(line for line in lines if line)


def _tag(element: Any) -> str:
    """Lower case, without namespace; "" for comments and processing instructions."""
    return element.tag.rsplit("}", 1)[-1].lower() if isinstance(element.tag, str) else ""
