"""Texts whose log-probability is measured: a text file is cut into pieces at paragraphs, rows with `text` are taken as they are.

Source: Gao et al. 2020, "The Pile", arXiv:2101.00027, section 3.1 (bits per byte).
"""

from pathlib import Path

from mygpt.artifacts.rows import SUFFIXES, read_rows
from mygpt.artifacts.task import Item, TaskSettings
from mygpt.core.errors import UsageError
from mygpt.evaluate.forgetting import pieces

PIECE_CHARACTERS = 2_000


def text(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    if source.name.removesuffix(".gz").endswith(SUFFIXES):
        items = [Item(str(row.values.get("id", row.number)), row.text("text")) for row in read_rows(source)]
    else:
        try:
            whole = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{source} cannot be read: {error}.", fix="Give a text file in UTF-8.") from error
        items = [Item(str(n), piece) for n, piece in enumerate(pieces(whole, PIECE_CHARACTERS), start=1) if piece.strip()]
    return TaskSettings(name="text", version="1", form="rolling", primary="bits_per_byte"), items
