"""Ratings: what people thought of several answers to one prompt, shown blind.

Payload  ratings.jsonl, one rating per line (UTF-8, no byte order mark):

    {"item_id": "q17", "prompt": "When?", "rater": "Ann", "choice": "ranking", "ranks": [2, 1, 1], "seconds": 12.5,
     "answers": [{"system": "base", "text": "..."}, ...], "created": "2026-11-21T16:00:00.000+00:00"}

answers   in the order in which this rater saw them, without their systems
choice    "ranking": `ranks` has a place for each answer, 1 is best, equal places are ties, no place is left out
          "best": 1 for the best answer, 2 for all others, which were not compared among themselves
          "cannot judge": `ranks` is empty
seconds   from showing to saving, while the page was in sight
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mygpt.artifacts.artifact import Artifact
from mygpt.core.errors import UsageError

Choice = Literal["ranking", "best", "cannot judge"]
_STRICT = ConfigDict(extra="forbid", strict=True)
_FORMAT = "The format stands in docs/studio/annotate.md."


@dataclass(frozen=True)
class ShownAnswer:
    __pydantic_config__ = _STRICT
    system: str
    text: str


@dataclass(frozen=True)
class Rating:
    __pydantic_config__ = _STRICT
    item_id: str
    prompt: str
    answers: tuple[ShownAnswer, ...]  # in the order shown
    rater: str
    choice: Choice
    ranks: tuple[int, ...]  # of `answers`; () where the rater could not judge
    seconds: float
    created: str  # ISO 8601

    def __post_init__(self) -> None:
        """Raises ValueError that names the field."""
        systems = [answer.system for answer in self.answers]
        if len(set(systems)) != len(systems) or len(systems) < 2:
            raise ValueError(f"`answers` must be two or more, each of its own system: {systems}")
        if not self.item_id or not self.rater.strip():
            raise ValueError("`item_id` and `rater` must not be empty")
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise ValueError(f"`seconds` must be 0 or more: {self.seconds}")
        wrong = _why_not(self.choice, self.ranks, len(systems))
        if wrong:
            raise ValueError(f"`ranks` {list(self.ranks)} of {len(systems)} answers, choice `{self.choice}`: {wrong}")
        try:
            datetime.fromisoformat(self.created)
        except ValueError:
            raise ValueError(f"`created` is not a time in ISO 8601: {self.created!r}") from None

    @property
    def comparisons(self) -> list[tuple[str, str, float]]:
        """(system, other system, preference) of each pair that this rating decides: 1 the first is better, 0 the second, 0.5 a tie."""
        decided = []
        if self.choice != "cannot judge":
            ranked = zip(self.answers, self.ranks, strict=True)
            for (one, rank), (other, other_rank) in combinations(ranked, 2):
                if self.choice == "ranking" or 1 in (rank, other_rank):
                    decided.append((one.system, other.system, 0.5 if rank == other_rank else float(rank < other_rank)))
        return decided


_RATING: TypeAdapter[Rating] = TypeAdapter(Rating)


@dataclass(frozen=True)
class Ratings(Artifact):
    kind: ClassVar[str] = "ratings"

    @cached_property
    def rows(self) -> list[Rating]:
        return read_ratings(self.payload / "ratings.jsonl")

    def preferences(self, first: str, second: str) -> dict[str, list[float]]:
        """By item, what each rater thought of `first` against `second`; items that nobody could judge are not in it."""
        found: dict[str, list[float]] = {}
        for rating in self.rows:
            for one, other, preference in rating.comparisons:
                if {one, other} == {first, second}:
                    found.setdefault(rating.item_id, []).append(preference if one == first else 1 - preference)
        return found


def read_ratings(path: Path) -> list[Rating]:
    """Raises UsageError that names file, line and field."""
    with open(path, "rb") as lines:  # bytes end at line feeds only; str.splitlines also cuts at U+2028 inside a text
        return [parse_rating(line, where=f"{path.name}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def parse_rating(line: bytes, *, where: str) -> Rating:
    try:
        return _RATING.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        named = f"`{field}`: " if field else ""
        raise UsageError(f"{where}: {named}{first['msg'].removeprefix('Value error, ')}.", fix=_FORMAT) from error


def rating_line(rating: Rating) -> str:
    return json.dumps(asdict(rating), allow_nan=False) + "\n"  # ASCII: a lone surrogate cannot spoil the file


def write_ratings(folder: Path, rows: Iterable[Rating]) -> None:
    (folder / "ratings.jsonl").write_text("".join(map(rating_line, rows)), encoding="ascii")


def ratings_facts(rows: Sequence[Rating]) -> dict[str, Any]:
    return {
        "ratings": len(rows),
        "items": len({row.item_id for row in rows}),
        "raters": len({row.rater for row in rows}),
        "systems": sorted({answer.system for row in rows for answer in row.answers}),
        "cannot_judge": sum(row.choice == "cannot judge" for row in rows),
    }


def _why_not(choice: str, ranks: Sequence[int], num_answers: int) -> str:
    """What is wrong with the ranks, or ""."""
    if choice == "cannot judge":
        return "who cannot judge gives no ranks" if ranks else ""
    if len(ranks) != num_answers:
        return "each answer needs a place"
    if set(ranks) != set(range(1, len(set(ranks)) + 1)):
        return "places go from 1 on without a gap"
    if choice == "best" and sorted(ranks) != [1] + [2] * (num_answers - 1):
        return "the best is 1, all others 2"
    return ""
