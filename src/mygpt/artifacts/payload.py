"""Files of one artefact: recorded, compared with the record, and brought safely to the disk."""

import os
from collections.abc import Iterator
from pathlib import Path

from mygpt.artifacts.manifest import FileRecord, Manifest, content_digest, identity_digest, request_digest
from mygpt.core.digest import digest_file


def damage_of(folder: Path, manifest: Manifest) -> list[str]:
    """What differs between the files in `folder` and `manifest`; empty when all is well."""
    damage = []
    payload = folder / "payload"
    present = {str(p.relative_to(payload)) for p in _entries(payload)}
    for path, record in manifest.files.items():
        if path not in present:
            damage.append(f"{path} is missing")
        elif not (payload / path).is_file() or (payload / path).is_symlink():
            damage.append(f"{path} is not a file")
        elif (payload / path).stat().st_size != record.bytes:
            damage.append(f"{path} has {(payload / path).stat().st_size} bytes instead of {record.bytes}")
        elif digest_file(payload / path) != record.sha256:
            damage.append(f"{path} was changed")
    damage += [f"{path} does not belong" for path in sorted(present - set(manifest.files))]
    if not damage and content_digest(manifest.files) != manifest.content:
        damage.append("the manifest's list of files was changed")
    if not damage and request_digest(manifest.recipe, manifest.config, manifest.inputs, manifest.tools, manifest.seed) != manifest.request:
        damage.append("the manifest's recipe, settings or inputs were changed")
    if not damage and identity_digest(manifest.kind, manifest.content, manifest.request) != manifest.digest:
        damage.append("the manifest's digest is not that of its content")
    return damage


def _entries(payload: Path) -> Iterator[Path]:
    """All that is not a folder: files, links, and what else a folder can hold."""
    return (p for p in payload.rglob("*") if p.is_symlink() or not p.is_dir())


def record_files(payload: Path) -> dict[str, FileRecord]:
    files = sorted(_entries(payload))
    for file in files:
        if file.is_symlink():
            raise AssertionError(f"a payload holds bytes, not links: {file.name}")
    return {str(p.relative_to(payload)): FileRecord(sha256=digest_file(p), bytes=p.stat().st_size) for p in files}


def write_synced(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
