"""A constitution: the principles that answers are held to, as a small YAML file that anybody can edit.

    id: house_style
    name: How we write to customers
    principles:
      - id: no_promises
        critique: Say where the answer promises a date, a price or a result that nobody has confirmed.
        revision: Rewrite the answer so that it promises only what is certain.
        better: promises nothing that nobody has confirmed          # completes "The better answer is the one that ..."
    examples:                                                       # shown to the critic before every question
      - {principle: no_promises, request: ..., answer: ..., critique: ..., revision: ...}
      - {principle: no_promises, request: ..., answer: ..., critique: No change needed. It promises nothing.}
    comparisons:                                                    # optional, shown to the judge
      - {principle: no_promises, request: ..., a: ..., b: ..., reason: ..., better: a}

An example without a revision shows the critic that it may leave an answer alone. At least one of each kind is asked for: a critic that only
ever saw changes changes everything.

Source: Bai et al. 2022, arXiv:2212.08073, sections 3.1 and 4.1.
We differ: one list serves both phases, so a principle also says what makes the better of two answers; the texts are our own.
"""

import difflib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from mygpt.core.config import Config, resolve
from mygpt.core.digest import digest_value
from mygpt.core.errors import UsageError

NO_CHANGE = "no change needed"
_FORM = "docs/align/constitution.md shows the form."


class Principle(Config):
    id: str = Field(pattern=r"^[a-z0-9_]+$")
    critique: str = Field(min_length=1)  # asks what an answer gets wrong
    revision: str = Field(min_length=1)  # asks for the answer without it
    better: str = Field(min_length=1)  # completes "The better answer is the one that ..."


class Example(Config):
    """A worked critique. Without a revision the answer stays as it is, and the critique begins with "No change needed"."""

    principle: str
    request: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    critique: str = Field(min_length=1)
    revision: str | None = Field(None, min_length=1)


class WorkedComparison(Config):
    principle: str
    request: str = Field(min_length=1)
    a: str = Field(min_length=1)
    b: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    better: Literal["a", "b"]


class Constitution(Config):
    id: str = Field(pattern=r"^[a-z0-9_]+$")
    name: str = Field(min_length=1)
    principles: tuple[Principle, ...] = Field(min_length=1)
    examples: tuple[Example, ...] = Field(min_length=2)
    comparisons: tuple[WorkedComparison, ...] = ()

    def principle(self, name: str) -> Principle:
        return next(one for one in self.principles if one.id == name)

    @property
    def told(self) -> dict[str, str]:
        """Which one it is, for facts."""
        return {"id": self.id, "name": self.name, "digest": digest_value(self.model_dump(mode="json"))}


def included() -> list[str]:
    """The names of the constitutions that come with mygpt."""
    files = (resources.files("mygpt.align") / "constitutions").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def open_constitution(name: str, file: Path | None = None) -> Constitution:
    """The user's `file` where there is one, else the included one of this name. Raises UsageError for neither."""
    if file is not None:
        return read_constitution(file)
    if name not in included():
        close = difflib.get_close_matches(name, included(), n=1)
        hint = f"Did you mean `{close[0]}`?" if close else f"Included are {', '.join(included())}."
        own = " A file of your own is `--constitution-file FILE`, so that its content stands in the lineage."
        raise UsageError(f"There is no constitution `{name}`.", fix=hint + own)
    text = (resources.files("mygpt.align") / "constitutions" / f"{name}.yaml").read_text(encoding="utf-8")
    return parse_constitution(yaml.safe_load(text), called=name)


def read_constitution(path: Path) -> Constitution:
    """Raises UsageError that names the file, the place and the nearest known name."""
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The constitution {path} cannot be read: {error}.", fix=f"Name a YAML file. {_FORM}") from error
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f", line {line + 1}"
        what = f"The constitution {path} is not YAML{where}: {getattr(error, 'problem', error)}."
        raise UsageError(what, fix="Mend that line.") from error
    return parse_constitution(read, called=str(path))


def parse_constitution(read: Any, *, called: str = "constitution") -> Constitution:
    if not isinstance(read, Mapping):
        raise UsageError(f"{called} holds no settings.", fix=f"Begin with `id:`, `name:` and `principles:`. {_FORM}")
    kinds: dict[str, type[Config]] = {"principles": Principle, "examples": Example, "comparisons": WorkedComparison}
    for name, kind in kinds.items():
        rows = read.get(name, ())
        if not isinstance(rows, (list, tuple)) or (not rows and name != "comparisons"):
            raise UsageError(f"{called} has no list of {name}.", fix=f"Write them under `{name}:`. {_FORM}")
        for number, row in enumerate(rows, 1):
            if not isinstance(row, Mapping):
                raise UsageError(f"{called}, {name} {number} is {row!r}.", fix=f"Give it its settings, one a line. {_FORM}")
            _resolved(kind, row, f"{called}, {name} {number}{_told(row)}")
    made: Constitution = _resolved(Constitution, read, called)
    _require_whole(made, called)
    return made


def _require_whole(made: Constitution, called: str) -> None:
    """What the fields by themselves cannot say."""
    known = [principle.id for principle in made.principles]
    twice = [name for name in dict.fromkeys(known) if known.count(name) > 1]
    if twice:
        raise UsageError(f"{called} has the principle `{twice[0]}` {known.count(twice[0])} times.", fix="Give each an id of its own.")
    named = {"example": [one.principle for one in made.examples], "comparison": [one.principle for one in made.comparisons]}
    for what, names in named.items():
        for number, name in enumerate(names, 1):
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean `{close[0]}`?" if close else f"There are: {', '.join(known)}."
                raise UsageError(f"{called}, {what} {number} is about the principle `{name}`, which is not there.", fix=hint)
    for number, example in enumerate(made.examples, 1):
        says_none = example.critique.lower().startswith(NO_CHANGE)
        if says_none != (example.revision is None):
            said = "says that no change is needed and has a revision" if says_none else "has no revision and finds fault"
            raise UsageError(
                f"{called}, example {number} {said}.",
                fix='Begin the critique of an answer that stays with "No change needed", and give every other example its revision.',
            )
    if len({example.revision is None for example in made.examples}) < 2:
        missing = "leaves the answer alone" if made.examples[0].revision is not None else "changes the answer"
        raise UsageError(
            f"{called} has {len(made.examples)} examples and none that {missing}.",
            fix="Show both: a critic does what its examples do, and changes everything or nothing.",
        )


def _told(row: Mapping[str, Any]) -> str:
    return f" ({row['id']})" if isinstance(row.get("id"), str) else ""


def _resolved(kind: type[Config], settings: Mapping[str, Any], called: str) -> Any:
    try:
        return resolve(kind, settings)
    except UsageError as error:
        raise UsageError(f"{called}: {error.what}", fix=_FORM if "--help" in error.fix else error.fix) from error
