"""Words with entity tags as a Dataset of the schema `tagged`: CoNLL columns, or rows with two lists.

    CoNLL                        one word a line, its tag last, a blank line between texts; `-DOCSTART-` lines are passed over
    JSON lines, JSON, Parquet    {"words": ["Ada", "slept"], "tags": ["B-PER", "O"]}

Tags are BIO (IOB2): `B-X` begins an entity of kind X, `I-X` continues it, `O` is none. A tag that continues nothing is an error that names
its place; `scheme=iob1` reads the older form, in which `B-X` stands only between two neighbours of one kind.

Source  Tjong Kim Sang and Veenstra 1999, "Representing text chunks", section 2 (IOB1, IOB2)
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mygpt.artifacts.dataset import Dataset, TaggedWords, row_facts, write_tagged
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.rows import SUFFIXES, read_rows
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.data.row_splits import train_and_test


class TaggedWordsConfig(Config):
    words: str = "words"  # what the file calls its columns; CoNLL files have no names
    tags: str = "tags"
    scheme: Literal["bio", "iob1"] = "bio"
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of the texts, where no held-out file is given


@recipe
def tagged_words(config: TaggedWordsConfig, *, source: Path, held_out: Path | None = None, run: Run) -> Dataset:
    """Splits `train` and `test`; the tags, `O` first, stand in the facts as labels."""
    rows = list(_read(source, config))
    given = None if held_out is None else list(_read(held_out, config))
    kinds = sorted({tag[2:] for row in rows for tag in row.tags if tag != "O"})
    if not kinds:
        raise UsageError(f"{source}: every word has the tag `O`, so there is nothing to find.", fix="Give texts with tagged entities.")
    for row in given or ():
        if unknown := next((tag for tag in row.tags if tag != "O" and tag[2:] not in kinds), ""):
            raise UsageError(f"{held_out}, {row.id}: entities of the kind {unknown[2:]} are not in {source}.", fix="Give some to train on.")
    order = run.random("held out")
    splits = train_and_test(rows, given, share=config.held_out_share, text_of=lambda r: r.words, order=order, run=run)
    counts = {name: dict(sorted(Counter(t[2:] for r in split for t in r.tags if t[0] == "B").items())) for name, split in splits.items()}
    labels = ["O", *(f"{place}-{kind}" for kind in kinds for place in "BI")]
    facts = row_facts("tagged", splits, labels=labels, entities=counts)
    return publish(Dataset, run, lambda folder: write_tagged(folder, splits), facts=facts)


def _read(file: Path, config: TaggedWordsConfig) -> Iterator[TaggedWords]:
    is_table = Path(file.name.removesuffix(".gz")).suffix.lower() in SUFFIXES
    for row in _of_rows(file, config) if is_table else _of_columns(file):
        if row.words:
            tags = as_bio(row.tags) if config.scheme == "iob1" else row.tags
            _require_bio(row.words, tags, where=f"{file}, {row.id}")
            yield TaggedWords(row.words, tuple(tags), row.id)


def _of_rows(file: Path, config: TaggedWordsConfig) -> Iterator[TaggedWords]:
    for row in read_rows(file):
        words, tags = row.texts(config.words), row.texts(config.tags)
        if len(words) != len(tags):
            what = f"{row.place}: {len(words)} words in `{config.words}` and {len(tags)} tags in `{config.tags}`."
            raise UsageError(what, fix="Each word has one tag.")
        if "" in words:
            raise UsageError(f"{row.place}: word {words.index('') + 1} in `{config.words}` is empty.", fix="Leave it out, with its tag.")
        yield TaggedWords(words, tags, f"row {row.number}")


def _of_columns(file: Path) -> Iterator[TaggedWords]:
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}.", fix="Check the path and that it is UTF-8.") from error
    words: list[str] = []
    tags: list[str] = []
    first = 1
    for number, line in enumerate([*lines, ""], start=1):
        cells = line.split()
        if not cells or cells[0] == "-DOCSTART-":
            if words:
                yield TaggedWords(tuple(words), tuple(tags), f"line {first}")
            words, tags, first = [], [], number + 1
        elif len(cells) == 1:
            raise UsageError(f"{file}, line {number}: {line!r} has a word and no tag.", fix="Write the word, a blank and its tag.")
        else:
            words.append(cells[0])
            tags.append(cells[-1])


def as_bio(tags: Sequence[str]) -> list[str]:
    """IOB1 -> BIO: an `I-X` that nothing of its kind precedes begins an entity."""
    before = ["O", *tags]
    return [f"B-{tag[2:]}" if tag[:2] == "I-" and before[i][2:] != tag[2:] else tag for i, tag in enumerate(tags)]


def _require_bio(words: Sequence[str], tags: Sequence[str], *, where: str) -> None:
    for i, (before, tag) in enumerate(zip(["O", *tags], tags, strict=False)):
        if tag != "O" and (tag[:2] not in ("B-", "I-") or not tag[2:]):
            raise UsageError(f"{where}: the tag {tag!r} of {words[i]!r} is no BIO tag.", fix="Tags are `O`, `B-KIND` and `I-KIND`.")
        if tag[:2] == "I-" and before[2:] != tag[2:]:
            raise UsageError(
                f"{where}: {words[i]!r} has the tag {tag}, and nothing of that kind stands before it ({before}).",
                fix="Begin each entity with B-; if the file is in the older form (IOB1), `--set scheme=iob1`.",
            )
