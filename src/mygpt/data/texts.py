"""Raw text, one document a row, as a Dataset of the schema `text`: of a corpus, or of a user's file."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from mygpt.artifacts.corpus import Corpus
from mygpt.artifacts.dataset import Conversation, Dataset, Message, row_facts, write_conversations
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.rows import SUFFIXES, read_rows
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.data.row_splits import train_and_test


class TextsConfig(Config):
    text: str = "text"  # what the file calls its column
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of the texts, where no held-out file is given


@recipe
def texts(
    config: TextsConfig, *, corpus: Corpus | None = None, source: Path | None = None, held_out: Path | None = None, run: Run
) -> Dataset:
    """Splits `train` and `test`, of the documents of `corpus` or the rows of `source` (a `.txt` file: its paragraphs)."""
    if (corpus is None) == (source is None):
        raise UsageError("The texts come from a corpus or from a file.", fix="Give one of `--corpus` and `--source`.")
    if corpus is not None:
        rows = [_raw(document.text, document.path) for document in corpus.stream_documents()]
    else:
        assert source is not None
        rows = _read(source, config)
    given = None if held_out is None else _read(held_out, config)
    order = run.random("held out")
    splits = train_and_test(rows, given, share=config.held_out_share, text_of=lambda r: r.raw_text, order=order, run=run)
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=row_facts("text", splits))


def _read(file: Path, config: TextsConfig) -> list[Conversation]:
    if Path(file.name.removesuffix(".gz")).suffix.lower() in SUFFIXES:
        return [_raw(row.text(config.text), str(row.number)) for row in read_rows(file)]
    try:
        paragraphs = [part.strip() for part in file.read_text(encoding="utf-8-sig").split("\n\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}.", fix="Give a text file, a table, or a corpus (`mygpt data ingest`).") from error
    return [_raw(part, str(number)) for number, part in enumerate(paragraphs, start=1) if part]


def _raw(text: str, name: str) -> Conversation:
    return Conversation((Message("text", text),), name)
