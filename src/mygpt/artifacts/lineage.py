"""Where an artefact comes from, what sets two apart, and whether it can be made again.

    why(store, manifest)      its family tree, back to the documents
    diff(store, a, b)         recipe, settings, inputs, tools, files, packages, code, hardware, figures
    rerun(store, manifest)    the same recipe on the same inputs; says what differs
Clearing up is `artifacts.gc`.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from inspect import signature, unwrap
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from mygpt.artifacts.artifact import Artifact
from mygpt.artifacts.gc import collect_garbage as collect_garbage
from mygpt.artifacts.gc import verify_all as verify_all
from mygpt.artifacts.kinds import noun
from mygpt.artifacts.manifest import SHORT, Input, Manifest, tool_parents
from mygpt.artifacts.recipe import config_type, recipe_function, safe_name, source_digest
from mygpt.artifacts.report import Report
from mygpt.artifacts.store import Store
from mygpt.core.config import resolve
from mygpt.core.errors import Damaged, Refused
from mygpt.core.run import Run

# -- why ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FamilyTree:
    id: str  # "adapter/handbook-3f2a...", or "source/NAME" for what lies outside the store
    kind: str
    digest: str
    argument: str = ""  # under which it was used: "dataset", "completer.model"; "" at the root
    recipe: str = ""
    created: str = ""
    cost: Mapping[str, float | None] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)  # address, licence, checksums of what came from outside
    path: str | None = None  # of a source
    note: str = ""  # "shown above", "not in this home", "damaged": no children for that reason
    children: tuple["FamilyTree", ...] = ()

    def lines(self) -> Iterator[str]:
        """As plain text, one line per ancestor."""
        yield self._line()
        for number, child in enumerate(self.children):
            last = number + 1 == len(self.children)
            below = child.lines()
            yield ("└── " if last else "├── ") + next(below)
            yield from (("    " if last else "│   ") + line for line in below)

    def _line(self) -> str:
        made = f"by {self.recipe} on {self.created[:16].replace('T', ' ')}" if self.recipe else ""
        seconds = self.cost.get("seconds")
        source = f"{self.path} (sha256 {self.digest[:SHORT]})" if self.path else ""
        parts = [self.id, made, "" if seconds is None else f"in {seconds:.1f} s", source, f"[{self.note}]" if self.note else ""]
        return (f"{self.argument}: " if self.argument else "") + "  ".join(part for part in parts if part)


def why(store: Store, manifest: Manifest) -> FamilyTree:
    """The family tree back to the sources. An ancestor used twice is shown once and referred to after that."""
    return _tree(store, manifest, argument="", shown=set())


def _tree(store: Store, manifest: Manifest, *, argument: str, shown: set[str]) -> FamilyTree:
    m = manifest
    own = FamilyTree(m.id, m.kind, m.digest, argument, recipe=m.recipe, created=m.created, cost=m.cost, provenance=m.provenance)
    if manifest.digest in shown:
        return replace(own, note="shown above")
    shown.add(manifest.digest)
    children = []
    for name, group in manifest.inputs.items():
        for one in group:
            if one.kind == "source":
                children.append(FamilyTree(f"source/{one.name}", "source", one.digest, argument=name, path=one.path))
            else:
                children.append(_ancestor(store, one.digest, f"{one.kind}/{one.name}-{one.digest[:SHORT]}", argument=name, shown=shown))
    for place, digest in tool_parents(manifest.tools):
        children.append(_ancestor(store, digest, digest[:SHORT], argument=place, shown=shown))
    return replace(own, children=tuple(children))


def _ancestor(store: Store, digest: str, called: str, *, argument: str, shown: set[str]) -> FamilyTree:
    try:
        found = store.get(digest)
    except Damaged:
        return FamilyTree(called, called.partition("/")[0], digest, argument=argument, note="damaged")
    if found is None:
        return FamilyTree(called, called.partition("/")[0], digest, argument=argument, note="not in this home")
    return _tree(store, found, argument=argument, shown=shown)


# -- diff ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """One thing that is not alike; None where one side does not have it."""

    key: str  # "learning_rate", "sft.rank", "train.parquet"
    a: Any
    b: Any

    @property
    def delta(self) -> float | None:
        """b - a, of numbers."""
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (self.a, self.b))
        return self.b - self.a if numbers else None


@dataclass(frozen=True)
class Differences:
    a: str
    b: str
    same_content: bool
    recipe: tuple[Change, ...]
    config: tuple[Change, ...]  # the seed among them
    inputs: tuple[Change, ...]
    tools: tuple[Change, ...]
    files: tuple[Change, ...]  # by SHA-256
    facts: tuple[Change, ...]
    figures: tuple[Change, ...]  # of two reports: numbers only
    packages: tuple[Change, ...]
    code: tuple[Change, ...]
    hardware: tuple[Change, ...]

    def sections(self) -> dict[str, tuple[Change, ...]]:
        """What differs, by section; nothing for sections that are alike."""
        return {name: value for name, value in vars(self).items() if isinstance(value, tuple) and value}


def diff(store: Store, a: Manifest, b: Manifest) -> Differences:
    figures_a, figures_b = (_figures(noun(m, store)) for m in (a, b))
    return Differences(
        a=a.id,
        b=b.id,
        same_content=a.content == b.content,
        recipe=changes({"recipe": a.recipe}, {"recipe": b.recipe}),
        config=changes({**a.config, "seed": a.seed}, {**b.config, "seed": b.seed}),
        inputs=changes(named_inputs(a.inputs), named_inputs(b.inputs)),
        tools=changes(a.tools, b.tools),
        files=changes({p: r.sha256 for p, r in a.files.items()}, {p: r.sha256 for p, r in b.files.items()}),
        facts=changes(a.facts, b.facts),
        figures=tuple(c for c in changes(figures_a, figures_b) if c.delta is not None),
        packages=changes(a.packages, b.packages),
        code=changes(a.code, b.code),
        hardware=changes(a.hardware, b.hardware),
    )


def changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Change, ...]:
    flat_a, flat_b = dict(_flat(a)), dict(_flat(b))
    keys = dict.fromkeys([*flat_a, *flat_b])
    return tuple(Change(key, flat_a.get(key), flat_b.get(key)) for key in keys if flat_a.get(key) != flat_b.get(key))


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """`{"sft": {"rank": 8}}` -> `("sft.rank", 8)`."""
    if isinstance(value, (Mapping, list)) and value:
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, part in items:
            yield from _flat(part, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def named_inputs(inputs: Mapping[str, list[Input]]) -> dict[str, str]:
    """Digest by argument and place, so that a changed file or artefact is one line."""
    return {f"{name}.{i}" if len(group) > 1 else name: one.digest for name, group in inputs.items() for i, one in enumerate(group)}


def _figures(artifact: Artifact) -> dict[str, Any]:
    return artifact.figures if isinstance(artifact, Report) else {}


# -- rerun --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RerunResult:
    identical: bool  # the same bytes
    made: Manifest
    kept: bool  # an identical copy is not kept; one that differs is, as NAME-rerun
    differences: Differences


def rerun(store: Store, manifest: Manifest, run: Run, rebuild_tool: Callable[[str, Any], Any]) -> RerunResult:
    """Call the recipe again with the recorded inputs, settings and seed, and compare.

    `rebuild_tool(argument, identity)` makes a completer, embedder, ... again. Raises Refused when an input is not what it was.
    Tags stay where they are: proving an artefact does not replace it.
    """
    function = recipe_function(manifest.recipe)
    hints = get_type_hints(unwrap(function))
    arguments: dict[str, Any] = {}
    for name in signature(unwrap(function)).parameters:
        if name in manifest.inputs:
            group = [_opened(store, name, one) for one in manifest.inputs[name]]
            arguments[name] = tuple(group) if _takes_tuple(hints[name]) else group[0]
        elif name in manifest.tools:
            identity = manifest.tools[name]
            several = isinstance(identity, list)
            arguments[name] = tuple(rebuild_tool(name, one) for one in identity) if several else rebuild_tool(name, identity)
        elif name not in ("config", "run"):
            arguments[name] = None
    again, published = copy.copy(run), []
    again.fresh, again.seed, again.name = True, manifest.seed, safe_name(f"{manifest.name}-rerun")
    again.listeners = [*run.listeners, lambda event: published.append(event["artifact"]) if event["event"] == "published" else None]
    config = resolve(config_type(function), manifest.config)
    latest = _latest(store, manifest.kind, manifest.name)
    made = function(config, **arguments, run=again).manifest
    if latest is not None:
        store.tag(latest, "latest")  # a recipe that chose the name itself has moved it
    differences = diff(store, manifest, made)
    identical = made.content == manifest.content
    if identical:
        for id in published:
            copied = store.find(id)
            if copied.name == again.name:
                store.untag(copied)
                store.remove(copied)
    return RerunResult(identical, made, not identical, differences)


def _latest(store: Store, kind: str, name: str) -> Manifest | None:
    digest = store.tags(kind, name).get("latest")
    return store.get(digest) if digest else None


def _opened(store: Store, argument: str, recorded: Input) -> Artifact | Path:
    if recorded.kind != "source":
        found = store.get(recorded.digest)
        if found is None:
            what = f"The input `{argument}`, {recorded.kind}/{recorded.name}-{recorded.digest[:SHORT]}, is not in {store.home} any more."
            raise Refused(what, fix="Make it again first, then rerun.")
        store.payload(found)
        return noun(found, store)
    path = Path(recorded.path or "")
    if not path.exists():
        raise Refused(f"The source `{argument}` is gone: {path}.", fix="Put it back as it was: the record holds its digest, not its bytes.")
    now = source_digest(path)
    if now != recorded.digest:
        what = f"The source `{argument}`, {path}, has changed: its digest was {recorded.digest[:SHORT]} and is {now[:SHORT]}."
        raise Refused(what, fix="Put it back as it was, or make a new artefact from what is there now.")
    return path


def _takes_tuple(hint: Any) -> bool:
    return any(get_origin(part) is tuple for part in (hint, *get_args(hint)))
