"""Documents in: files and folders become a Corpus, each file read or named with the reason why not.

Nothing is written into the sources, no link out of them is followed, hidden files are left alone. Conversions of formats that are
slow to read are kept in `<home>/cache/converted`, so that one new file costs only itself.
"""

import json
import os
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mygpt.artifacts.corpus import Corpus, Document, Passage, Skipped, write_corpus
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.digest import digest_file, digest_value
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.data.language import detect_language
from mygpt.data.passages import passages_of
from mygpt.data.readers.conversion import Converted, Unreadable
from mygpt.data.readers.formats import FORMATS, Format, format_of
from mygpt.data.readers.ocr import Tesseract
from mygpt.data.readers.pool import Outcome, ReaderPool

_NAMED_IN_WARNING = 3


class IngestConfig(Config):
    passage_words: int = 120  # about; passages end where the text's own parts end
    max_file_mb: float = 100
    patience_seconds: float = 60  # a parser that gives no sign of life for so long is stopped


@dataclass(frozen=True)
class _Found:
    """A file to read, and the path it goes by in the corpus."""

    file: Path
    path: str
    bytes: int
    sha256: str
    format: Format


@recipe
def ingest(config: IngestConfig, *, sources: tuple[Path, ...], ocr: Tesseract | None = None, run: Run) -> Corpus:
    """`sources` are folders and files, `ocr` reads scanned pages (`find_tesseract()`); without it they are skipped and named."""
    if config.passage_words < 10:
        raise UsageError(f"`passage_words` is {config.passage_words}.", fix="Give at least 10; 80 to 200 work well.")
    skipped, notes = list[Skipped](), list[str]()
    found = _unique(_survey(sources, config, skipped), skipped)

    def write(folder: Path) -> dict[str, Any]:
        facts = write_corpus(folder, _documents(found, config, ocr, skipped, notes, run), skipped)
        _warn(skipped, notes, run)
        if not facts["documents"]:
            raise _nothing_read(sources, skipped)
        return {**facts, "notes": notes[:100]}

    return publish(Corpus, run, write, provenance={"sources": [str(source) for source in sources]})


def require_readable(file: Path, config: IngestConfig, *, ocr: Tesseract | None = None, run: Run) -> None:
    """Raises UsageError with the reason when `file` gives no text; nothing is made. A slow conversion is kept for the next reading."""
    skipped = list[Skipped]()
    for _ in _documents(_survey((file,), config, skipped), config, ocr, skipped, [], run):
        pass
    if skipped:
        raise UsageError(f"{file} was not read, {skipped[0].reason}: {skipped[0].detail}", fix=skipped[0].fix)


def _documents(
    found: Sequence[_Found], config: IngestConfig, ocr: Tesseract | None, skipped: list[Skipped], notes: list[str], run: Run
) -> Iterator[tuple[Document, list[Passage]]]:
    """Each file read and cut, one after the other; what cannot be read goes into `skipped`."""
    progress = run.progress(len(found), "files")
    cache = _Conversions(run.home / "cache" / "converted", ocr, fresh=run.fresh)
    with ReaderPool(workers=min(2, os.cpu_count() or 1), patience_seconds=config.patience_seconds, ocr=ocr) as pool:
        for item, outcome in cache.read(found, pool):
            if isinstance(outcome, Unreadable):
                skipped.append(Skipped(item.path, outcome.reason, outcome.detail, outcome.fix))
            else:
                document = _document(item, outcome)
                notes += [f"{item.path}: {note}" for note in outcome.notes]
                yield document, passages_of(document, config.passage_words)
            progress.advance(1, skipped=len(skipped))


# -- what there is ---------------------------------------------------------------------------------------------------------


def _survey(sources: Sequence[Path], config: IngestConfig, skipped: list[Skipped]) -> list[_Found]:
    """Every file of every source, those that cannot be read put into `skipped`. In the order of sources, then paths."""
    found, taken = [], set[str]()
    for source in sources:
        for file, path in _files(source, skipped):
            path = _distinct(path, file, taken)
            try:
                found.append(_inspect(file, path, config))
            except Unreadable as unreadable:
                skipped.append(Skipped(path, unreadable.reason, unreadable.detail, unreadable.fix))
            except OSError as error:
                fix = "Check that you may read it (`ls -l`), then run again."
                skipped.append(Skipped(path, "unreadable", f"{error.strerror or error}.", fix))
    return found


def _files(source: Path, skipped: list[Skipped]) -> Iterator[tuple[Path, str]]:
    """Files below `source` with their paths relative to it; links that lead out, nowhere or in a circle are skipped."""
    if source.is_file():
        yield source, _printable(source.name)
        return
    if not source.is_dir():
        state = "is neither a file nor a folder" if source.exists() else "does not exist"
        raise UsageError(f"{source} {state}.", fix="Name a folder with documents, or one document.")
    root = source.resolve()
    for folder, subfolders, names in os.walk(source, onerror=lambda error: skipped.append(_closed_folder(error, source))):
        subfolders[:] = sorted(name for name in subfolders if not _is_hidden(name))
        for name in sorted([*names, *(s for s in subfolders if (Path(folder) / s).is_symlink())]):
            file = Path(folder) / name
            path = _printable(file.relative_to(source).as_posix())
            if _is_hidden(name):
                continue
            if file.is_symlink() and (problem := _link_problem(file, root)):
                skipped.append(Skipped(path, *problem))
            elif file.is_file():
                yield file, path
            elif not file.is_dir():
                skipped.append(Skipped(path, "unsupported", "It is no regular file.", "Leave it out."))


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "~$")) or name in ("Thumbs.db", "desktop.ini", "__MACOSX")


def _link_problem(link: Path, root: Path) -> tuple[str, str, str] | None:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return "broken link", "The link leads nowhere, or in a circle.", "Remove it, or point it to a file in the folder."
    if not target.is_relative_to(root):
        fix = "Copy the file into the folder if it belongs to your documents."
        return "link out of the folder", f"The link leads to {_printable(str(target))}.", fix
    return None  # a file is read, or found to be a duplicate; a folder inside is read where it lies


def _closed_folder(error: OSError, source: Path) -> Skipped:
    folder = Path(error.filename or source)
    path = folder.relative_to(source).as_posix() if folder.is_relative_to(source) else folder.as_posix()
    fix = "Check that you may open this folder (`ls -ld`), then run again."
    return Skipped(_printable(path), "unreadable", f"{error.strerror or error}.", fix)


def _printable(path: str) -> str:
    """As UTF-8, on one line: a name is shown in tables and prompts."""
    return " ".join(os.fsencode(path).decode("utf-8", "replace").split())


def _distinct(path: str, file: Path, taken: set[str]) -> str:
    """`path`, or with its folder's name in front when another source has a file of the same path."""
    candidates = [path, f"{_printable(file.absolute().parent.name)}/{path}"]
    number = 2
    while candidates[0] in taken:
        candidates = candidates[1:] or [f"{path} ({number})"]
        number += 1
    taken.add(candidates[0])
    return candidates[0]


def _inspect(file: Path, path: str, config: IngestConfig) -> _Found:
    size = file.stat().st_size
    if size == 0:
        raise Unreadable("empty", "It has 0 bytes.", "Save or copy it again.")
    if size > config.max_file_mb * 1e6:
        fix = f"Split it, or allow it with `--set ingest.max_file_mb={size / 1e6 + 1:.0f}`."
        raise Unreadable("too large", f"It has {size / 1e6:,.0f} MB; the limit is {config.max_file_mb:g} MB.", fix)
    form = format_of(file)
    return _Found(file, path, size, digest_file(file), form)


def _unique(found: Sequence[_Found], skipped: list[Skipped]) -> list[_Found]:
    first: dict[str, _Found] = {}
    for item in found:
        twin = first.setdefault(item.sha256, item)
        if twin is not item and not item.file.samefile(twin.file):
            skipped.append(Skipped(item.path, "duplicate", f"It is a duplicate of {twin.path}.", "Nothing to do: its text is read once."))
    return sorted(first.values(), key=lambda item: item.path)


# -- conversions -----------------------------------------------------------------------------------------------------------


class _Conversions:
    """What was converted before, by the file's digest, the reader's version and the OCR program; plain text is as fast read anew."""

    def __init__(self, folder: Path, ocr: Tesseract | None, *, fresh: bool):
        self._folder, self._fresh = folder, fresh
        self._ocr = digest_value(ocr.identity)[:8] if ocr else ""

    def read(self, found: Sequence[_Found], pool: ReaderPool) -> Iterator[tuple[_Found, Outcome]]:
        """Every item with its outcome, in order."""
        stored = [item.format.isolated and not self._fresh and self._file(item).exists() for item in found]
        outcomes = pool.read([(item.file, item.format) for item, known in zip(found, stored, strict=True) if not known])
        for item, known in zip(found, stored, strict=True):
            outcome: Outcome | None = self._load(item) if known else next(outcomes)
            if outcome is None:  # stored, but damaged
                outcome = next(pool.read([(item.file, item.format)]))
                known = False
            if not known and item.format.isolated and isinstance(outcome, Converted):
                self._store(item, outcome)
            yield item, outcome

    def _file(self, item: _Found) -> Path:
        ocr = f"-{self._ocr}" if self._ocr and item.format.name == "pdf" else ""
        return self._folder / f"{item.sha256}-{item.format.name}{item.format.version}{ocr}.json"

    def _load(self, item: _Found) -> Converted | None:
        try:
            record = json.loads(self._file(item).read_text(encoding="utf-8"))
            return Converted(record["text"], record["title"], tuple((s, p) for s, p in record["places"]), tuple(record["notes"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _store(self, item: _Found, converted: Converted) -> None:
        """Beside, then renamed. A cache that cannot be written is no reason to stop."""
        file = self._file(item)
        beside = file.with_name(f".{uuid.uuid4().hex}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(asdict(converted)), encoding="utf-8")
            os.replace(beside, file)
        except OSError:
            beside.unlink(missing_ok=True)


def _document(item: _Found, converted: Converted) -> Document:
    stem = " ".join(Path(item.path).stem.replace("_", " ").replace("-", " ").split())
    return Document(
        id=digest_value([item.path, converted.text])[:16],
        path=item.path,
        text=converted.text,
        title=converted.title[:200] or stem or item.path,
        media_type=item.format.media_type,
        sha256=item.sha256,
        bytes=item.bytes,
        language=detect_language(converted.text),
        places=converted.places,
    )


# -- what to say -----------------------------------------------------------------------------------------------------------


def _warn(skipped: Sequence[Skipped], notes: Sequence[str], run: Run) -> None:
    """One warning for each reason, not for each file."""
    by_reason: dict[str, list[Skipped]] = defaultdict(list)
    for item in skipped:
        by_reason[item.reason].append(item)
    for reason, items in by_reason.items():
        run.warn(f"{_counted(len(items), 'file')} skipped, {reason}: {_listed([item.path for item in items])}. {items[0].fix}")
    if notes:
        run.warn(f"{_counted(len(notes), 'file')} read in part: {_listed(notes)}.")


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _NAMED_IN_WARNING
    return ", ".join(items[:_NAMED_IN_WARNING]) + (f" and {more:,} more" if more > 0 else "")


def _nothing_read(sources: Sequence[Path], skipped: Sequence[Skipped]) -> UsageError:
    where = ", ".join(str(source) for source in sources) or "No source"
    endings = ", ".join(form.endings[0] for form in FORMATS)
    if not skipped:
        return UsageError(f"{where} has no documents in it.", fix=f"Put documents there ({endings}); hidden files are not read.")
    reasons: dict[str, int] = defaultdict(int)
    for item in skipped:
        reasons[item.reason] += 1
    told = ", ".join(f"{number} {reason}" for reason, number in sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    return UsageError(
        f"{where} has no readable text: {_counted(len(skipped), 'file')} skipped ({told}).",
        fix=f"{skipped[0].path}: {skipped[0].detail} {skipped[0].fix} Readable are {endings}.",
    )
