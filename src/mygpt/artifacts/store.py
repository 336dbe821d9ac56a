"""Where artefacts live: `<home>/artifacts/<kind>/<name>-<digest>/` = manifest.json + payload/.

Publishing writes beside, syncs, and renames: a crash leaves nothing that looks whole and is not. Reading verifies. Tags
(`name:latest`, `name:v3`) move, digests do not. The SQLite catalogue is an index over the manifests and is rebuilt from them.
"""

import difflib
import errno
import fcntl
import os
import re
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mygpt.artifacts.catalogue import Catalogue
from mygpt.artifacts.manifest import SHORT, Manifest, content_digest, is_digest, read_record, write_record
from mygpt.artifacts.payload import damage_of, record_files, sync_folder, sync_tree, write_synced
from mygpt.core.errors import Damaged, MygptError, UsageError, from_os_error
from mygpt.core.home import model_cache

_REFERENCE = re.compile(r"(?:(?P<kind>\w+)/)?(?P<name>\w[\w.-]*)(?::(?P<tag>\w[\w.-]*))?")
VERSION = re.compile(r"v[1-9]\d*")

_verified: set[tuple[str, int]] = set()  # (artefact folder, manifest mtime) already hashed by this process


class Store:
    """One home. `cache=True` also looks artefacts up in the user's model cache (never written through this store)."""

    def __init__(self, home: Path, *, cache: bool = True):
        self.home = Path(home).absolute()
        self.artifacts = self.home / "artifacts"
        self.cache = Store(model_cache(), cache=False) if cache and model_cache() != self.home else None
        self._catalogue = Catalogue(self.home / "catalogue.sqlite", self.artifacts, self.read_manifest)

    # -- writing --------------------------------------------------------------------------------------------------------

    def publish(self, kind: str, name: str, write: Callable[[Path], Any], describe: Callable[..., Manifest]) -> Manifest:
        """`write(folder)` makes the payload; `describe(files=, content=, written=)` its manifest. Whole, or not at all.

        `written` is what `write` returned.

        Content that is already here under this name is not stored twice: the manifest that stands is returned.
        """
        staging = self.home / "staging" / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            with self.lock("staging.lock", fcntl.LOCK_SH):
                try:
                    (staging / "payload").mkdir(parents=True)
                    written = write(staging / "payload")
                    files = record_files(staging / "payload")
                    text = write_record(describe(files=files, content=content_digest(files), written=written))
                    write_synced(staging / "manifest.json", text)
                    sync_tree(staging)
                    manifest = self._take_place(staging, read_record(text))
                    self._tag_new(manifest, manifest.name)  # under the lock: `gc` must not meet it untagged
                    return manifest
                finally:
                    shutil.rmtree(staging, ignore_errors=True)
        except MygptError:
            raise
        except Exception as error:
            if _is_full_disk(error):
                raise from_os_error(OSError(errno.ENOSPC, str(error), str(self.home))) from error
            if isinstance(error, OSError):
                raise from_os_error(error) from error
            raise

    def tag(self, manifest: Manifest, tag: str, *, name: str | None = None) -> None:
        """`name` other than the artefact's own: equal work under a second name, for example of a copied folder."""
        file = self.home / "tags" / manifest.kind / (name or manifest.name) / tag
        beside = file.with_name(f".{tag}.{uuid.uuid4().hex[:8]}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                write_synced(beside, manifest.digest)
                os.replace(beside, file)
            finally:
                beside.unlink(missing_ok=True)
        except OSError as error:
            raise from_os_error(error) from error

    def _tag_new(self, manifest: Manifest, name: str) -> None:
        """The next version number, unless it has one, and `latest`. Locked: two processes must not take the same number."""
        with self.lock("tags.lock", fcntl.LOCK_EX):
            tags = self.tags(manifest.kind, name)
            versions = {tag: digest for tag, digest in tags.items() if VERSION.fullmatch(tag)}
            if manifest.digest not in versions.values():
                self.tag(manifest, f"v{1 + max((int(tag[1:]) for tag in versions), default=0)}", name=name)
            if tags.get("latest") != manifest.digest:
                self.tag(manifest, "latest", name=name)

    def touch(self, manifest: Manifest, *, name: str | None = None) -> None:
        """`manifest` was asked for again: it is the latest of its name (or of `name`), also after a crash between rename and tag."""
        if self._folder(manifest).is_dir():  # else: held by the user's model cache
            self._tag_new(manifest, name or manifest.name)

    def untag(self, manifest: Manifest) -> None:
        """Drop the tags of this name that point at it."""
        for tag, digest in self.tags(manifest.kind, manifest.name).items():
            if digest == manifest.digest:
                (self.home / "tags" / manifest.kind / manifest.name / tag).unlink(missing_ok=True)

    def remove(self, manifest: Manifest) -> None:
        """Tags that pointed at it point at nothing from now on, and are ignored."""
        self.remove_folder(self._folder(manifest))

    def remove_folder(self, folder: Path) -> None:
        """Out of sight first (rename), then delete, so that a crash leaves no half artefact."""
        try:
            self._bury(folder)
        except OSError as error:
            raise from_os_error(error) from error

    def _take_place(self, staging: Path, manifest: Manifest) -> Manifest:
        folder = self._folder(manifest)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for last_try in (False, True):
            standing = self._whole(folder)
            if standing is not None and standing.digest == manifest.digest:
                return standing
            if standing is not None:
                raise MygptError(f"{manifest.id} is taken by another artefact.", fix="Choose another name with `--name`.")
            if folder.exists():
                self._bury(folder)  # damaged: made again here
            try:
                os.rename(staging, folder)
                break
            except OSError as error:
                if last_try or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise  # else: another process was first
        sync_folder(folder.parent)
        _verified.add(_stamp(folder))
        return manifest

    def _bury(self, folder: Path) -> None:
        grave = self.home / "staging" / f"{os.getpid()}-removed-{uuid.uuid4().hex[:8]}"
        grave.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(folder, grave)
        except FileNotFoundError:
            return  # another process was first
        shutil.rmtree(grave, ignore_errors=True)

    # -- reading --------------------------------------------------------------------------------------------------------

    def folders(self) -> list[Path]:
        """Every folder that holds, or claims to hold, an artefact."""
        return sorted(folder for folder in self.artifacts.glob("*/*") if folder.is_dir())

    def manifests(self) -> Iterator[Manifest]:
        """Of every artefact whose record can be read, oldest first. Others are named by `mygpt verify`."""
        found = []
        for folder in self.folders():
            try:
                found.append(self.read_manifest(folder))
            except Damaged:
                continue
        yield from sorted(found, key=lambda m: m.created)

    def read_manifest(self, folder: Path) -> Manifest:
        """The record of the artefact in `folder`. Raises Damaged when it is not as it was written, or lies in another's place."""
        try:
            manifest = read_record((folder / "manifest.json").read_text(encoding="utf-8"))
            if self._folder(manifest).name != folder.name or manifest.kind != folder.parent.name:
                raise ValueError(f"it is that of {manifest.id}")
        except (OSError, ValueError) as error:  # pydantic's ValidationError is a ValueError
            reason = error.strerror if isinstance(error, OSError) else str(error).partition("\n")[0]
            raise Damaged(
                f"{folder / 'manifest.json'} cannot be read: {reason}.",
                fix="Remove it with `mygpt gc --damaged` and make it again.",
            ) from error
        return manifest

    def tags(self, kind: str, name: str) -> dict[str, str]:
        """Digest by tag. A tag whose file holds no digest is ignored."""
        found = {}
        for file in sorted((self.home / "tags" / kind / name).glob("[!.]*")):
            digest = file.read_text(encoding="utf-8", errors="replace").strip() if file.is_file() else ""
            if is_digest(digest):
                found[file.name] = digest
        return found

    def find(self, reference: str, *, kind: str | None = None) -> Manifest:
        """By digest (8 characters or more), id, `name`, `name:tag` or `kind/name:tag`. Raises UsageError with near names."""
        found = self.lookup(reference, kind=kind)
        if found is not None:
            return found
        stores = (self, self.cache) if self.cache else (self,)
        manifests = [m for store in stores for m in store.manifests() if kind in (None, m.kind)]
        names = sorted({f"{m.kind}/{m.name}" for m in manifests} | {m.name for m in manifests})
        nearest = difflib.get_close_matches(reference.split(":")[0], names, n=3)
        wanted = f"{kind} " if kind else "artefact "
        hint = f"Did you mean {', '.join(f'`{n}`' for n in nearest)}?" if nearest else "`mygpt show` lists what there is."
        raise UsageError(f"No {wanted}`{reference}` in {self.home}.", fix=hint)

    def lookup(self, reference: str, *, kind: str | None = None) -> Manifest | None:
        parts = _REFERENCE.fullmatch(reference)
        if parts is None:
            return None
        name, tag = parts["name"], parts["tag"]
        if kind and parts["kind"] not in (None, kind):
            return None
        kind = parts["kind"] or kind
        by_tag = [m for k, d in self._tagged(kind, name, tag or "latest") if (m := self._at(k, name, d) or self.get(d))]
        if by_tag:
            return max(by_tag, key=lambda m: m.created)
        prefix = name.rsplit("-", 1)[-1].lower()
        if not tag and len(prefix) >= 8 and all(c in "0123456789abcdef" for c in prefix):
            matches = self._by_digest(prefix, kind)
            if len({m.digest for m in matches}) > 1:
                listed = ", ".join(m.id for m in matches)
                raise UsageError(f"`{reference}` is the beginning of several digests: {listed}.", fix="Give more characters.")
            if matches:
                return max(matches, key=lambda m: m.id.endswith(reference))  # one digest may have several names
        return self.cache.lookup(reference, kind=kind) if self.cache else None

    def get(self, digest: str) -> Manifest | None:
        """The artefact with exactly this digest, or None."""
        if not is_digest(digest):
            return None
        for folder in self.artifacts.glob(f"*/*-{digest[:SHORT]}"):
            manifest = self.read_manifest(folder)
            if manifest.digest == digest:
                return manifest
        return self.cache.get(digest) if self.cache else None

    def made(self, request: str, *, kinds: Collection[str] = ()) -> Manifest | None:
        """The newest artefact (of these kinds) that answers this request, if any. One with a damaged record is as good as none."""
        for folder in self._catalogue.folders_for(request):
            try:
                manifest = self.read_manifest(folder)
            except Damaged:
                continue
            if manifest.request == request and (not kinds or manifest.kind in kinds):
                return manifest
        return self.cache.made(request, kinds=kinds) if self.cache else None

    def payload(self, manifest: Manifest) -> Path:
        """The payload folder, verified once per process. Raises Damaged when a file is missing, changed or left over."""
        folder = self._folder(manifest)
        if not folder.is_dir() and self.cache:
            return self.cache.payload(manifest)
        if _stamp(folder) not in _verified:
            self.verify(manifest)
            _verified.add(_stamp(folder))
        return folder / "payload"

    def verify(self, manifest: Manifest) -> None:
        """Hash every file of the artefact against its manifest."""
        folder = self._folder(manifest)
        if not folder.is_dir() and self.cache:
            return self.cache.verify(manifest)
        damage = damage_of(folder, manifest)
        if not damage and self.read_manifest(folder).digest != manifest.digest:
            damage = ["it is another artefact now"]
        if damage:
            raise Damaged(
                f"{manifest.id} is damaged: {'; '.join(damage[:3])}.",
                fix=f"Remove it with `mygpt gc --damaged` and make it again (made by {manifest.recipe}).",
            )
        return None

    def bytes(self, manifest: Manifest) -> int:
        return sum(record.bytes for record in manifest.files.values())

    def rebuild_catalogue(self) -> int:
        """Read every manifest into a new catalogue; returns how many."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            return self._catalogue.rebuild()
        except OSError as error:
            raise from_os_error(error) from error
        except sqlite3.Error as error:
            fix = "Choose a folder that you may write to with `--home DIR`."
            raise MygptError(f"The catalogue {self._catalogue.path} cannot be written: {error}.", fix=fix) from error

    def _folder(self, manifest: Manifest) -> Path:
        return self.artifacts / manifest.kind / f"{manifest.name}-{manifest.digest[:SHORT]}"

    def _whole(self, folder: Path) -> Manifest | None:
        """The manifest of the artefact in `folder` if all of it is as it was written."""
        try:
            manifest = self.read_manifest(folder)
        except Damaged:
            return None
        return None if damage_of(folder, manifest) else manifest

    def _at(self, kind: str, name: str, digest: str) -> Manifest | None:
        folder = self.artifacts / kind / f"{name}-{digest[:SHORT]}"
        return self.read_manifest(folder) if folder.is_dir() else None

    def _by_digest(self, prefix: str, kind: str | None) -> list[Manifest]:
        folders = self.artifacts.glob(f"{kind or '*'}/*-{prefix[:SHORT]}*")
        return [m for folder in folders if (m := self.read_manifest(folder)).digest.startswith(prefix)]

    def _tagged(self, kind: str | None, name: str, tag: str) -> list[tuple[str, str]]:
        """(kind, digest) of what this tag of this name points at."""
        kinds = [kind] if kind else sorted(folder.name for folder in (self.home / "tags").glob("*") if folder.is_dir())
        return [(k, digest) for k in kinds if (digest := self.tags(k, name).get(tag))]

    # -- locks ------------------------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, name: str, how: int) -> Iterator[None]:
        """Hold `<home>/<name>` for the time of the block; `how` as in fcntl.flock. The kernel lets go when the process dies."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            file = open(self.home / name, "a+b")  # noqa: SIM115
        except OSError as error:
            raise from_os_error(error) from error
        with file:
            fcntl.flock(file, how)
            yield

    @contextmanager
    def exclusive(self, purpose: str) -> Iterator[None]:
        """Held by long work. A second one is refused, with the process that holds it."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            file = open(self.home / "lock", "a+", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise from_os_error(error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().strip() or "another process"
                fix = "Wait until it is done, or use another home with `--home DIR`."
                raise MygptError(f"{self.home} is in use by {holder}.", fix=fix) from error
            with suppress(OSError):  # a name for people: on a full disk the lock holds without it, so that `gc` can run
                file.truncate(0)
                os.write(file.fileno(), f"`{purpose}` (process {os.getpid()})".encode())
            try:
                yield
            finally:
                with suppress(OSError):
                    file.truncate(0)


def _stamp(folder: Path) -> tuple[str, int]:
    try:
        return str(folder), (folder / "manifest.json").stat().st_mtime_ns
    except OSError:
        return str(folder), 0


def _is_full_disk(error: Exception) -> bool:
    """Also as sqlite3, safetensors and numpy say it, which set no errno."""
    return any(re.search(words, str(error)) for words in ("No space left on device", "disk is full", r"\d+ requested and \d+ written"))
