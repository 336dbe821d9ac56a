"""The record: show, why, diff, rerun, verify, gc, where."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from mygpt.cli.options import DryRun, Home, Json, home_of, progress_view
from mygpt.cli.options import show as show_result
from mygpt.core.errors import Damaged

Reference = Annotated[str, typer.Argument(help="A name, name:tag, kind/name or digest.")]


def _store(home: Any) -> Any:
    from mygpt.artifacts.store import Store

    return Store(home_of(home))


def show(
    reference: Annotated[str | None, typer.Argument(help="A name, name:tag, kind/name or digest; without one: list everything.")] = None,
    home: Home = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """One artefact's manifest, or a list of all.

    Example: mygpt show adapter/handbook
    """
    store = _store(home)
    if reference is not None:
        manifest = store.find(reference)
        show_result(manifest.model_dump(mode="json"), as_json=json, picture=lambda: manifest.model_dump_json(indent=1))
        return
    rows = [{"id": m.id, "kind": m.kind, "created": m.created, "bytes": store.bytes(m), "facts": m.facts} for m in store.manifests()]

    def table() -> Any:
        from rich.table import Table

        made = Table(box=None, header_style="bold")
        for column in ("artefact", "created", "size"):
            made.add_column(column, justify="right" if column == "size" else "left")
        for row in rows:
            made.add_row(row["id"], row["created"][:19].replace("T", " "), f"{row['bytes'] / 1e6:,.1f} MB")
        return made if rows else f"Nothing in {store.home} yet. Begin with `mygpt up DIR`."

    show_result(rows, as_json=json, picture=table)


def why(reference: Reference, home: Home = None, json: Json = False, dry_run: DryRun = False) -> None:
    """Where an artefact comes from: its family tree, back to the documents.

    Example: mygpt why deployment/handbook
    """
    from mygpt.artifacts.lineage import why as family

    store = _store(home)
    tree = family(store, store.find(reference))
    show_result(asdict(tree), as_json=json, picture=lambda: "\n".join(tree.lines()))


def diff(a: Reference, b: Reference, home: Home = None, json: Json = False, dry_run: DryRun = False) -> None:
    """What sets two artefacts apart: recipe, settings, inputs, files, packages, figures.

    Example: mygpt diff report/handbook:v1 report/handbook:v2
    """
    from mygpt.artifacts.lineage import diff as compare

    store = _store(home)
    found = compare(store, store.find(a), store.find(b))
    show_result(asdict(found), as_json=json, picture=lambda: "\n".join(difference_lines(found)))


def rerun(
    reference: Reference,
    home: Home = None,
    share_documents: Annotated[
        bool, typer.Option("--share-documents", help="Let passages go again to a completer that is not this machine.")
    ] = False,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Make an artefact again from its record, and say what differs.

    Example: mygpt rerun adapter/handbook
    """
    from mygpt.artifacts.kinds import noun
    from mygpt.artifacts.lineage import rerun as again
    from mygpt.cli.recipe_call import num_texts
    from mygpt.core.run import Run

    store = _store(home)
    manifest = store.find(reference)
    if dry_run:
        inputs = {name: [i.name for i in group] for name, group in manifest.inputs.items()}
        show_result({"recipe": manifest.recipe, "inputs": inputs, "seconds_last_time": manifest.cost.get("seconds")}, as_json=json)
        return
    from mygpt.pipelines.tools import rebuild_tool

    used = [noun(found, store) for group in manifest.inputs.values() for one in group if (found := store.get(one.digest))]
    with (
        store.exclusive(f"mygpt rerun {reference}"),
        Run(store.home, name=manifest.name, seed=manifest.seed, listeners=(progress_view(),)) as run,
        run.step("rerun"),
    ):
        rebuild = rebuild_tool(store, run, num_passages=sum(map(num_texts, used)), share_documents=share_documents)
        result = again(store, manifest, run, rebuild)
    shown: dict[str, Any] = {
        "identical": result.identical,
        "made": result.made.id,
        "kept": result.kept,
        "differences": asdict(result.differences),
    }
    words = "Identical, byte for byte." if result.identical else f"Not the same bytes; kept as {result.made.id}."
    show_result(
        shown, as_json=json, picture=lambda: "\n".join([words, *([] if result.identical else difference_lines(result.differences))])
    )


def difference_lines(found: Any) -> list[str]:
    lines = [f"{found.a}", f"{found.b}", "The same bytes." if found.same_content else "Not the same bytes."]
    for section, changes in found.sections().items():
        lines.append(f"{section}:")
        lines += [f"  {c.key}: {_short(c.a)} -> {_short(c.b)}" + ("" if c.delta is None else f"  ({c.delta:+.4g})") for c in changes]
    return lines


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def verify(
    reference: Annotated[str | None, typer.Argument(help="One artefact; without one: all.")] = None,
    home: Home = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Hash every file against its manifest.

    Example: mygpt verify
    """
    from mygpt.artifacts.lineage import verify_all

    store = _store(home)
    if reference is not None:
        store.verify(store.find(reference))
        show_result({"verified": 1, "damaged": []}, as_json=json, picture=lambda: "Whole.")
        return
    damaged = verify_all(store)
    total = sum(1 for _ in store.artifacts.glob("*/*/manifest.json"))
    result = {"verified": total - len(damaged), "damaged": [{"id": i, "problem": p} for i, p in damaged]}
    if damaged and not json:
        first = f"{damaged[0][0]}: {damaged[0][1]}"
        raise Damaged(
            f"{len(damaged)} of {total} artefacts are damaged; the first: {first}",
            fix="`mygpt gc --damaged` removes them; then make them again.",
        )
    show_result(result, as_json=json, picture=lambda: f"All {total} artefacts are whole.")
    if damaged:
        raise typer.Exit(1)


def gc(
    damaged: Annotated[bool, typer.Option("--damaged", help="Also remove artefacts that do not verify.")] = False,
    home: Home = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Remove what nothing refers to: artefacts that no tag reaches, and leftovers of killed processes.

    Example: mygpt gc --dry-run
    """
    from mygpt.artifacts.lineage import collect_garbage

    store = _store(home)
    found = collect_garbage(store, dry_run=dry_run, damaged=damaged)
    if damaged and store.cache is not None:  # the user's model cache holds the bases
        found += collect_garbage(store.cache, dry_run=dry_run, damaged=True)
    removed: list[dict[str, Any]] = [{"id": i, "bytes": n, "reason": r} for i, n, r in found]
    freed = sum(r["bytes"] for r in removed) / 1e6
    verb = "Would remove" if dry_run else "Removed"
    show_result(
        removed,
        as_json=json,
        picture=lambda: "\n".join([f"{verb} {len(removed)} ({freed:,.1f} MB)", *(f"  {r['id']}: {r['reason']}" for r in removed)]),
    )


def where(technique: Annotated[str, typer.Argument(help="For example: sft, ingest.")], json: Json = False, dry_run: DryRun = False) -> None:
    """Where a technique is: its file, its source, its page.

    Example: mygpt where sft
    """
    from mygpt.catalog import where as find

    row = asdict(find(technique))
    show_result(row, as_json=json, picture=lambda: "\n".join(f"{key:8} {value}" for key, value in row.items()))
