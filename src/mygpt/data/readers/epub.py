"""EPUB: the chapters of a book in reading order."""

import posixpath
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mygpt.data.passages import heading_places
from mygpt.data.readers.archive import check_archive
from mygpt.data.readers.conversion import Converted, Reading, Unreadable, clean
from mygpt.data.readers.encoding import decode
from mygpt.data.readers.html import parse
from mygpt.data.readers.html_markdown import to_markdown

_CONTAINER = "META-INF/container.xml"
_FONT_ALGORITHMS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")  # fonts made unreadable, text is not


def read_epub(file: Path, reading: Reading) -> Converted:
    check_archive(file, member=_CONTAINER)
    with zipfile.ZipFile(file) as book:
        if "META-INF/encryption.xml" in book.namelist():
            methods = [e.get("Algorithm", "") for e in _xml(book, "META-INF/encryption.xml").iter("{*}EncryptionMethod")]
            if any(method not in _FONT_ALGORITHMS for method in methods):
                raise Unreadable("encrypted", "The book is protected (DRM).", "Use an unprotected copy.")
        package_path = next((e.get("full-path", "") for e in _xml(book, _CONTAINER).iter("{*}rootfile")), "")
        package = _xml(book, package_path)
        title = next((" ".join((e.text or "").split()) for e in package.iter("{*}title")), "")
        files = {e.get("id"): e.get("href", "") for e in package.iter("{*}item")}
        chapters, missing = [], 0
        for item in package.iter("{*}itemref"):
            reading.alive()
            path = posixpath.normpath(posixpath.join(posixpath.dirname(package_path), unquote(files.get(item.get("idref")) or "")))
            try:
                source = decode(book.read(path), declared=True)
            except KeyError:
                source, missing = None, missing + 1
            root = parse(source) if source else None
            body = root.find("body") if root is not None else None
            if body is not None and item.get("linear") != "no":
                chapters.append(clean(to_markdown(body)))
    text = "\n\n".join(chapter for chapter in chapters if chapter)
    return Converted(text, title, heading_places(text), (f"{missing} chapters are missing in the file",) if missing else ())


def _xml(book: zipfile.ZipFile, path: str) -> Any:
    from lxml import etree

    try:
        return etree.fromstring(book.read(path), etree.XMLParser(resolve_entities=False, no_network=True))
    except (KeyError, etree.XMLSyntaxError) as error:
        raise Unreadable("corrupt", f"{path or 'Its package file'} cannot be read: {error}.", "Use another copy of the book.") from error
