"""HTML: the main text of a page, with its tables, lists and code.

A page that marks its main part, or has little but text, is converted whole (trafilatura drops headings and short tables of such
documents). A page where links are a large part of the words is a web page with menus around its text: trafilatura finds the text.
"""

import re
from pathlib import Path
from typing import Any

from mygpt.data.passages import heading_places
from mygpt.data.readers.conversion import Converted, Reading, Unreadable, clean
from mygpt.data.readers.encoding import read_text
from mygpt.data.readers.html_markdown import to_markdown
from mygpt.data.readers.text import first_heading

_AROUND = ".//nav | .//footer | .//aside | .//*[@role='navigation' or @role='banner' or @role='contentinfo' or @role='search' or @hidden]"
_MOST_LINKED = 0.35  # share of a page's characters inside links above which it has menus around its text
_ENOUGH_WORDS = 40


def read_html(file: Path, reading: Reading) -> Converted:
    source = read_text(file, declared=True)
    root = parse(source)
    if root is None:
        raise Unreadable("no text", "The page is empty.", "Save the page again from the browser (complete, or as PDF).")
    title = " ".join("".join(root.xpath("string(//title)")).split())
    text = clean(_main_text(root, source))
    heading = first_heading(text)
    return Converted(text, heading if heading and heading in title else title or heading, heading_places(text))


def parse(source: str) -> Any | None:
    """The tree of a page; None for one without elements. Nesting beyond 256 levels is cut by the parser."""
    import lxml.etree
    import lxml.html

    source = re.sub(r"^\s*<\?xml[^>]*\?>", "", source.lstrip("\ufeff"))
    try:
        return lxml.html.document_fromstring(source, parser=lxml.html.HTMLParser(no_network=True, remove_comments=True, remove_pis=True))
    except lxml.etree.ParserError:
        return None


def _main_text(root: Any, source: str) -> str:
    mains = root.xpath("//main | //*[@role='main']") or root.xpath("//article")
    if len(mains) == 1 and len(mains[0].text_content().split()) >= _ENOUGH_WORDS:
        return to_markdown(_without_surroundings(mains[0]))
    body = _without_surroundings(root.find("body") if root.find("body") is not None else root)
    if _linked_share(body) > _MOST_LINKED:
        import trafilatura

        found = trafilatura.extract(source, output_format="markdown", include_tables=True, include_comments=False, favor_recall=True)
        if found and len(found.split()) >= _ENOUGH_WORDS:
            return found
    return to_markdown(body)


def _without_surroundings(part: Any) -> Any:
    for around in part.xpath(_AROUND):
        if around.getparent() is not None and around is not part:
            around.drop_tree()
    for header in part.xpath(".//header[not(ancestor::article) and not(ancestor::section)]"):
        if not header.xpath(".//h1"):
            header.drop_tree()
    return part


def _linked_share(body: Any) -> float:
    everything = sum(len(text.strip()) for text in body.itertext())
    linked = sum(len(link.text_content().strip()) for link in body.iter("a"))
    return linked / everything if everything else 0.0
