"""Examples on the disk: their token ids are written while they are rendered and read when a batch is made, so that memory does not grow
with the set.

    <home>/cache/examples/<request>/tokens.bin    a number for each token: its id, doubled, plus 1 where it is trained
                                    names.bin     UTF-8, for messages
                                    index.npy     a row for each example: where it stands in these two, and how much of it is trained
                                    about.json    what they were rendered by, the warnings, the digests of the three

In memory stays a row of the index for each example, 48 bytes; of tokens only those of the batch. The files stay while a training is
unfinished, like its checkpoints, so that one that goes on does not tokenise again. They are written beside and renamed; files that do not
have their digest are made anew.

Source     ours; memory as large as the set is what users of others report: docs/training/silent_failures.md
We differ  plain reads, not a memory map: pages of a map count as memory of the process
"""

import json
import os
import shutil
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import mygpt
from mygpt.artifacts.recipe import Making
from mygpt.core.digest import digest_file, digest_value
from mygpt.core.errors import Refused, from_os_error
from mygpt.core.run import Run
from mygpt.lm.chat import Rendered

_PARTS = ("tokens.bin", "names.bin", "index.npy")
_TOKEN, _LETTER = np.dtype("<u4"), np.dtype("u1")
_FIRST, _TOKENS, _TRAINED, _NAME, _NAME_BYTES, _WARNINGS = range(6)  # columns of the index; trained: labels, so not a first token


@dataclass(frozen=True, eq=False)
class ExampleFile(Sequence[Rendered]):
    """Reads one example at a time; without `parts`, which are for display."""

    folder: Path
    index_NC: np.ndarray  # int64
    warnings: tuple[tuple[str, ...], ...]  # all that an example comes with, each once

    def __len__(self) -> int:
        return len(self.index_NC)

    def __getitem__(self, number: Any) -> Any:  # a Rendered
        row = self.index_NC[number]
        marked_T = self._read("tokens.bin", _TOKEN, row[_FIRST], row[_TOKENS])
        trained = (marked_T & 1).astype(bool)
        return Rendered(tuple((marked_T >> 1).tolist()), tuple(trained.tolist()), (), self.warnings[row[_WARNINGS]])

    def chosen(self, numbers: Sequence[int]) -> "ExampleFile":
        """These, in this order; nothing is written."""
        return replace(self, index_NC=self.index_NC[list(numbers)])

    @cached_property
    def num_tokens(self) -> list[int]:
        return self.index_NC[:, _TOKENS].tolist()

    @cached_property
    def num_trained(self) -> list[int]:
        """Labels of each."""
        return self.index_NC[:, _TRAINED].tolist()

    @property
    def names(self) -> "Names":
        return Names(self)

    def shortest(self, count: int = 1) -> list[Rendered]:
        return [self[i] for i in np.argsort(self.index_NC[:, _TOKENS], kind="stable")[:count]]

    def _read(self, part: str, dtype: np.dtype[Any], first: int, count: int) -> np.ndarray:
        try:
            found = np.fromfile(self.folder / part, dtype, count=int(count), offset=int(first) * dtype.itemsize)
        except OSError as error:
            raise from_os_error(error) from error
        assert len(found) == count, f"{self.folder / part} was cut short while it was read"
        return found


@dataclass(frozen=True, eq=False)
class Names(Sequence[str]):
    """Of the examples, read when a message needs them: the place, and the name where there is one."""

    file: ExampleFile

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, number: Any) -> Any:  # a text
        row = self.file.index_NC[number]
        name = self.file._read("names.bin", _LETTER, row[_NAME], row[_NAME_BYTES]).tobytes().decode()
        return f"{number} ({name})" if name else f"{number}"


@contextmanager
def examples_on_disk(named: Iterable[tuple[str, Rendered]], *, rendered_by: str, run: Run) -> Iterator[ExampleFile]:
    """Examples with their names, drawn from `named` only where they are not on the disk yet. `rendered_by`: what they depend on beside the
    request of the recipe under way (its inputs, settings and seed).

    They are removed when the work in the block is done, or refused: then nothing can go on from them.
    """
    making: Making = run.making
    rank = f"-{run.ranks.rank}" if run.ranks.rank else ""  # each of several makes its own, as each loads its own model
    folder = run.home / "cache" / "examples" / f"{making.request[:32]}{rank}"
    programs = {"mygpt": mygpt.__version__, **{name: version(name) for name in ("transformers", "tokenizers")}}
    key = digest_value({"request": making.request, "rendered_by": rendered_by, "programs": programs})
    try:
        file = _written_before(folder, key)
        if file is None:
            file = _write(folder, named, key, run=run)
        else:
            run.note(f"{len(file):,} examples were tokenised before: they are read from {folder}.")
        yield file
    except Refused:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _written_before(folder: Path, key: str) -> ExampleFile | None:
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        if about["key"] != key or about["digests"] != _digests(folder):
            return None
        return _opened(folder, about["warnings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _opened(folder: Path, warnings: Iterable[Iterable[str]]) -> ExampleFile:
    return ExampleFile(folder, np.load(folder / "index.npy", allow_pickle=False), tuple(map(tuple, warnings)))


def _digests(folder: Path) -> dict[str, str]:
    return {part: digest_file(folder / part) for part in _PARTS}


def _write(folder: Path, named: Iterable[tuple[str, Rendered]], key: str, *, run: Run) -> ExampleFile:
    """Beside, then renamed: whole or not at all."""
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        for left_by_a_kill in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
        beside.mkdir(parents=True)
        warnings = _write_parts(beside, named, run=run)
        about = {"key": key, "warnings": warnings, "digests": _digests(beside)}
        (beside / "about.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(beside, folder)
    except OSError as error:
        raise from_os_error(error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return _opened(folder, warnings)


def _write_parts(folder: Path, named: Iterable[tuple[str, Rendered]], *, run: Run) -> list[tuple[str, ...]]:
    """tokens.bin, names.bin, index.npy. Returns the warnings that examples come with."""
    known: dict[tuple[str, ...], int] = {}
    index = array("q")
    first_token = first_letter = 0
    progress = run.progress(None, "examples")
    with ExitStack() as files:
        tokens, names = (files.enter_context(open(folder / part, "wb")) for part in _PARTS[:2])
        for name, example in named:
            marked_T = np.array(example.token_ids, _TOKEN) << 1 | np.array(example.trained, _TOKEN)
            letters = name.encode("utf-8", "replace")
            tokens.write(marked_T.tobytes())
            names.write(letters)
            warned = known.setdefault(example.warnings, len(known))
            index.extend((first_token, len(marked_T), sum(example.trained[1:]), first_letter, len(letters), warned))
            first_token, first_letter = first_token + len(marked_T), first_letter + len(letters)
            progress.advance()
    np.save(folder / "index.npy", np.array(index, np.int64).reshape(-1, 6), allow_pickle=False)
    return list(known)
