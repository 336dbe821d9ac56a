"""Clearing up a home: what nothing refers to, what dead processes left behind, and (asked for) what is damaged."""

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from mygpt.artifacts.manifest import Manifest, is_digest
from mygpt.artifacts.payload import damage_of
from mygpt.artifacts.store import VERSION, Store
from mygpt.core.errors import Damaged, MygptError, Refused

Removed = tuple[str, int, str]  # id, bytes, reason

_EVERY_VERSION_KEPT = ("deployment", "adapter", "feedback", "ratings")
_NEVER_REMOVED = ("feedback", "ratings")  # people's words cannot be made again


def collect_garbage(store: Store, *, dry_run: bool, damaged: bool = False) -> list[Removed]:
    """Remove what no tag leads to; with `damaged`, what does not verify. Returns what was (or would be) removed.

    Kept are the latest of each name, everything that a person tagged, every version of deployments, adapters, feedback and ratings, and
    all ancestors of these. Nobody else may work in this home meanwhile: takes its lock. Raises Refused when a record cannot be
    read: what that artefact needs is not known.
    """
    with nullcontext() if dry_run else store.exclusive("mygpt gc"), _nobody_publishing(store):
        doomed = [(folder, "left by a process that was stopped") for folder in sorted((store.home / "staging").glob("*"))]
        doomed += [found for found in (_damage(store) if damaged else _unreachable(store)) if found[0].parent.name not in _NEVER_REMOVED]
        removed = [(_id(folder), _bytes_below(folder), reason) for folder, reason in doomed]
        if not dry_run:
            for folder, _ in doomed:
                store.remove_folder(folder)
        return removed


@contextmanager
def _nobody_publishing(store: Store) -> Iterator[None]:
    """Whoever publishes holds this lock, dies with it, and tags before letting go: under it, leftovers are leftovers."""
    try:
        with store.lock("staging.lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield
    except BlockingIOError as error:
        raise MygptError(f"Another process is storing something in {store.home}.", fix="Try again when it is done.") from error


def verify_all(store: Store) -> list[tuple[str, str]]:
    """(id, problem) of every artefact of this home that is not as it was written. Hashes every file."""
    return [(_id(folder), problem) for folder, problem in _damage(store)]


def _damage(store: Store) -> Iterator[tuple[Path, str]]:
    for folder in store.folders():
        try:
            problems = damage_of(folder, store.read_manifest(folder))
        except Damaged as error:
            problems = [error.what]
        if problems:
            yield folder, "; ".join(problems)


def _unreachable(store: Store) -> list[tuple[Path, str]]:
    """Children before their parents, so that a crash leaves no child without one."""
    manifests = []
    for folder in store.folders():
        try:
            manifests.append(store.read_manifest(folder))
        except Damaged as error:
            if folder.parent.name in _NEVER_REMOVED:
                continue
            raise Refused(f"{error.what} What it was made from cannot be told from what nobody needs.", fix=error.fix) from error
    kept = _reachable(manifests, _roots(store, manifests))
    children_first = sorted(manifests, key=lambda m: m.created, reverse=True)
    return [(store.artifacts / m.id, "nothing refers to it") for m in children_first if m.digest not in kept]


def _roots(store: Store, manifests: Iterable[Manifest]) -> set[str]:
    roots = set()
    for kind, name in {(m.kind, m.name) for m in manifests}:
        for tag, digest in store.tags(kind, name).items():
            if kind in _EVERY_VERSION_KEPT or not VERSION.fullmatch(tag):
                roots.add(digest)
    return roots | {m.digest for m in manifests if m.kind in _NEVER_REMOVED}


def _reachable(manifests: Iterable[Manifest], roots: set[str]) -> set[str]:
    by_digest = {m.digest: m for m in manifests}
    reached: set[str] = set()
    to_visit = list(roots)
    while to_visit:
        digest = to_visit.pop()
        if digest in reached:
            continue
        reached.add(digest)
        if digest in by_digest:
            to_visit += [*by_digest[digest].parents, *_digests_in(by_digest[digest].facts)]
    return reached


def _digests_in(value: Any) -> Iterator[str]:
    """Whatever in the facts could be an artefact, such as an adapter's base."""
    if isinstance(value, str) and is_digest(value):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _digests_in(part)


def _bytes_below(folder: Path) -> int:
    return sum(p.lstat().st_size for p in folder.rglob("*") if not p.is_dir())


def _id(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"
