"""Small files in every format, made by the tests themselves."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

Lines = Sequence[tuple[float, float, float, str]]  # (x, y, size in points, text)


def pdf(file: Path, pages: Sequence[Lines], *, password: str | None = None, title: str = "") -> Path:
    """A PDF with Helvetica text at given places; `password` encrypts it (RC4, 40 bits: PDF 1.7 reference, algorithms 2 to 4)."""
    count = len(pages)
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(count))
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Count {count} /Kids [{kids}] >>"]
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    streams: dict[int, bytes] = {}
    for i, lines in enumerate(pages):
        shown = "".join(f"BT /F1 {size} Tf {x} {y} Td ({_escaped(text)}) Tj ET\n" for x, y, size, text in lines)
        streams[5 + 2 * i] = shown.encode("latin-1")
        resources = "<< /Font << /F1 3 0 R >> >>"
        objects += [f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources {resources} /Contents {5 + 2 * i} 0 R >>", ""]
    identifier, extra = bytes(range(16)), f" /ID [<{bytes(range(16)).hex()}> <{bytes(range(16)).hex()}>]"
    if password is not None:
        key, owner, user = _keys(password, identifier)
        objects.append(f"<< /Filter /Standard /V 1 /R 2 /P -4 /O <{owner.hex()}> /U <{user.hex()}> >>")
        extra += f" /Encrypt {len(objects)} 0 R"
        streams = {n: rc4(hashlib.md5(key + n.to_bytes(3, "little") + b"\0\0").digest()[:10], data) for n, data in streams.items()}
    elif title:
        objects.append(f"<< /Title ({_escaped(title)}) >>")
        extra += f" /Info {len(objects)} 0 R"
    _write_pdf(file, objects, streams, extra)
    return file


def _write_pdf(file: Path, objects: Sequence[str], streams: dict[int, bytes], extra: str) -> None:
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        data = body.encode("latin-1")
        if number in streams:
            data = f"<< /Length {len(streams[number])} >>\nstream\n".encode() + streams[number] + b"\nendstream"
        out += f"{number} 0 obj\n".encode() + data + b"\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    end = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R{extra} >>\nstartxref\n{len(out)}\n%%EOF\n"
    file.write_bytes(out + end.encode())


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


_PAD = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")


def _keys(password: str, identifier: bytes) -> tuple[bytes, bytes, bytes]:
    padded = (password.encode() + _PAD)[:32]
    owner = rc4(hashlib.md5(padded).digest()[:5], padded)
    key = hashlib.md5(padded + owner + (-4 & 0xFFFFFFFF).to_bytes(4, "little") + identifier).digest()[:5]
    return key, owner, rc4(key, _PAD)


def rc4(key: bytes, data: bytes) -> bytes:
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out, i, j = bytearray(), 0, 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def scanned_pdf(file: Path) -> Path:
    from PIL import Image

    Image.new("L", (200, 100), 255).save(file, "PDF")
    return file


_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_RELATIONSHIPS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def docx(file: Path, paragraphs: Sequence[tuple[str, str]], table: Sequence[Sequence[str]] = ()) -> Path:
    """(style id, text) paragraphs, then a table."""
    body = "".join(f'<w:p><w:pPr><w:pStyle w:val="{style}"/></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>' for style, text in paragraphs)
    cells = "".join(
        "<w:tr>" + "".join(f"<w:tc><w:p><w:r><w:t>{cell}</w:t></w:r></w:p></w:tc>" for cell in row) + "</w:tr>" for row in table
    )
    body += f"<w:tbl>{cells}</w:tbl>" if table else ""
    names = {"Heading1": "heading 1", "Heading2": "heading 2", "Title": "Title", "Normal": "Normal"}
    styles = "".join(f'<w:style w:type="paragraph" w:styleId="{i}"><w:name w:val="{n}"/></w:style>' for i, n in names.items())
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(
            "[Content_Types].xml",
            '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/word/document.xml" ContentType="{kind}.document.main+xml"/>'
            f'<Override PartName="/word/styles.xml" ContentType="{kind}.styles+xml"/></Types>',
        )
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{_RELATIONSHIPS}">'
            f'<Relationship Id="r1" Type="{_OFFICE}/officeDocument" Target="word/document.xml"/></Relationships>',
        )
        archive.writestr(
            "word/_rels/document.xml.rels",
            f'<Relationships xmlns="{_RELATIONSHIPS}"><Relationship Id="r1" Type="{_OFFICE}/styles" Target="styles.xml"/></Relationships>',
        )
        archive.writestr("word/styles.xml", f'<w:styles xmlns:w="{_WORD}">{styles}</w:styles>')
        archive.writestr("word/document.xml", f'<w:document xmlns:w="{_WORD}"><w:body>{body}</w:body></w:document>')
    return file


def epub(file: Path, chapters: Sequence[str], *, title: str = "A Book", encrypted: bool = False) -> Path:
    items = "".join(f'<item id="c{i}" href="text/c%20{i}.xhtml" media-type="application/xhtml+xml"/>' for i in range(len(chapters)))
    spine = "".join(f'<itemref idref="c{i}"/>' for i in range(len(chapters)))
    named = f'<t:title xmlns:t="http://purl.org/dc/elements/1.1/">{title}</t:title>'
    package = f'<package xmlns="http://www.idpf.org/2007/opf"><metadata>{named}</metadata>'
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr(
            "META-INF/container.xml",
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
        )
        if encrypted:
            method = '<EncryptionMethod xmlns="http://www.w3.org/2001/04/xmlenc#" Algorithm="http://www.w3.org/2001/04/xmlenc#aes256-cbc"/>'
            archive.writestr("META-INF/encryption.xml", f"<encryption>{method}</encryption>")
        archive.writestr("OEBPS/book.opf", f"{package}<manifest>{items}</manifest><spine>{spine}</spine></package>")
        for i, chapter in enumerate(chapters):
            archive.writestr(f"OEBPS/text/c {i}.xhtml", f'<html xmlns="http://www.w3.org/1999/xhtml"><body>{chapter}</body></html>')
    return file


def prose(seed: int, words: int) -> str:
    """Distinct English-looking text: sentences of ten words."""
    words_known = "the office opens early and every visitor signs the book before lunch with a valid card from our desk upstairs"
    vocabulary = words_known.split()
    chosen = [vocabulary[(seed * 7 + i * 5 + i * i * (seed % 11)) % len(vocabulary)] for i in range(words)]
    sentences = [" ".join(chosen[i : i + 10]) for i in range(0, words, 10)]
    return " ".join(f"{s[0].upper()}{s[1:]} number {seed}." for s in sentences)
