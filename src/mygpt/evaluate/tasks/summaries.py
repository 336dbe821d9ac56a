"""Summarisation: a text and its summary, under the names that the usual sets have: `document`, `dialogue`, `article` or `text`, and
`summary` or `highlights`.

Source: Lin 2004 (ROUGE), Papineni et al. 2002 (BLEU), Popović 2015 (chrF); the sets: SAMSum (Gliwa et al. 2019), XSum (Narayan et al.
2018), CNN/DailyMail (See et al. 2017).
We differ: nothing is cut. A text that does not fit the model's window is an error.
"""

from pathlib import Path

from mygpt.artifacts.rows import Row, read_rows
from mygpt.artifacts.task import Item, TaskSettings
from mygpt.core.errors import UsageError

_TEXTS = ("document", "dialogue", "article", "text")
_SUMMARIES = ("summary", "highlights")


def summaries(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    settings = TaskSettings(
        name="summaries",
        version="2",
        form="generate",
        answer="summary",
        primary="rouge_l",
        prompt="{question}\n\nSummarise the text above in one or two sentences.",
        max_tokens=96,
    )
    return settings, [_item(row) for row in read_rows(source)]


def _item(row: Row) -> Item:
    return Item(str(row.values.get("id", row.number)), row.text(_named(row, _TEXTS)), references=(row.text(_named(row, _SUMMARIES)),))


def _named(row: Row, names: tuple[str, ...]) -> str:
    found = next((name for name in names if name in row.values), None)
    if found is None:
        raise UsageError(f"{row.place}: the field `{names[0]}` is missing.", fix=f"One of these is needed: {', '.join(names)}.")
    return found
