"""Texts that belong together, of a user's file, as a Dataset of the schema `pairs`: question and answer, title and body, two wordings."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from mygpt.artifacts.dataset import Dataset, TextPair, row_facts, write_pairs
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.rows import Row, read_rows
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.data.row_splits import train_and_test


class TextPairsConfig(Config):
    """What the file calls its columns."""

    anchor: str = "anchor"  # what is searched with
    positive: str = "positive"  # what is to be found
    negatives: str = "negatives"  # near and wrong: a list of texts, or one text; a file may do without
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of the anchors, where no held-out file is given


@recipe
def text_pairs(config: TextPairsConfig, *, source: Path, held_out: Path | None = None, run: Run) -> Dataset:
    """Splits `train` and `test`."""
    rows = [_pair(row, config) for row in read_rows(source)]
    given = None if held_out is None else [_pair(row, config) for row in read_rows(held_out)]
    order = run.random("held out")
    splits = train_and_test(rows, given, share=config.held_out_share, text_of=lambda r: r.anchor, order=order, run=run)
    return publish(Dataset, run, lambda folder: write_pairs(folder, splits), facts=row_facts("pairs", splits))


def _pair(row: Row, config: TextPairsConfig) -> TextPair:
    given = row.values.get(config.negatives)
    is_list = isinstance(given, list) or str(given or "").lstrip().startswith("[")
    negatives = row.texts(config.negatives) if is_list else (row.text(config.negatives),) if given else ()
    pair = TextPair(row.text(config.anchor), row.text(config.positive), negatives, str(row.number))
    if pair.positive in negatives:
        raise UsageError(
            f"{row.place}: the text of `{config.positive}` also stands in `{config.negatives}`.", fix="A text is one or the other."
        )
    return pair
