"""The chat page's files, read once from the installed package: no path of a request ever reaches the disk."""

from dataclasses import dataclass
from importlib.resources import files

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class PageFile:
    content: bytes
    media_type: str


def page_files() -> dict[str, PageFile]:
    """By name: index.html, chat.css, ..."""
    found = {}
    for entry in files("mygpt.serve").joinpath("page").iterdir():
        suffix = entry.name[entry.name.rfind(".") :]
        if suffix in _MEDIA_TYPES:
            found[entry.name] = PageFile(entry.read_bytes(), _MEDIA_TYPES[suffix])
    return found
