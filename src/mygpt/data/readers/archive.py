"""Office and EPUB files are ZIP archives. What is wrong with one is found here before any parser unpacks it."""

import zipfile
from pathlib import Path

from mygpt.data.readers.conversion import Unreadable

MOST_UNPACKED_BYTES = 500_000_000
MOST_RATIO = 200  # unpacked to packed; office XML is 5 to 30
_RATIO_FROM_BYTES = 20_000_000
_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # Microsoft's older container
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")


def check_archive(file: Path, *, member: str) -> None:
    """Raise Unreadable unless `file` is a sound ZIP archive with `member` in it and of a sane size."""
    with open(file, "rb") as opened:
        head = opened.read(8)
        if head == _COMPOUND:
            if _ENCRYPTED_PACKAGE in opened.read():
                raise Unreadable("encrypted", "It opens with a password only.", "Save a copy without the password and run again.")
            raise Unreadable("unsupported", "It is an old binary Office file.", "Save it in the current format (.docx, .pptx, .xlsx).")
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            names = {info.filename for info in infos}
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise Unreadable("corrupt", f"Its archive cannot be opened: {error}.", "Open it in its program and save it again.") from error
    unpacked, packed = sum(info.file_size for info in infos), sum(info.compress_size for info in infos)
    if unpacked > MOST_UNPACKED_BYTES or (unpacked > _RATIO_FROM_BYTES and unpacked > MOST_RATIO * max(packed, 1)):
        raise Unreadable(
            "too large",
            f"It unpacks to {unpacked / 1e6:,.0f} MB from {packed / 1e6:,.1f} MB.",
            "If you trust it, split it or save its text in another format.",
        )
    if any(info.flag_bits & 1 for info in infos):
        raise Unreadable("encrypted", "Its archive opens with a password only.", "Remove the password and run again.")
    if member not in names:
        raise Unreadable("corrupt", f"It has no {member}.", "Open it in its program and save it again.")
