"""Everyday work: init, up, add, chat, serve."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from mygpt.cli.options import DryRun, Home, Json, Offline, Settings, home_of, progress_view, show
from mygpt.core.errors import UsageError
from mygpt.views.numbers import duration

Name = Annotated[str | None, typer.Argument(help="Which one; default: the newest in this home.")]


def init(json: Json = False, dry_run: DryRun = False) -> None:
    """Make a home for work in the current folder (.mygpt/).

    Example: mygpt init
    """
    home = Path.cwd() / ".mygpt"
    there = home.is_dir()
    if not dry_run:
        home.mkdir(exist_ok=True)
        (home / ".gitignore").write_text("*\n", encoding="utf-8")
    show({"home": str(home), "made": not there}, as_json=json, picture=lambda: f"{'Already there' if there else 'Made'}: {home}")


def up(
    folder: Annotated[Path, typer.Argument(help="A folder of documents: md, txt, html, pdf, docx, pptx, xlsx, epub, csv, jsonl.")],
    home: Home = None,
    name: Annotated[str | None, typer.Option(help="What to call it; default: the folder's name.")] = None,
    model: Annotated[str | None, typer.Option(help="The base: an alias, a folder, a .gguf file or a hub name.")] = None,
    minutes: Annotated[float | None, typer.Option(help="About how long to work, on two cores. Default 10.")] = None,
    retune: Annotated[bool, typer.Option("--retune", help="Train anew on the documents as they are now.")] = False,
    teacher: Annotated[str | None, typer.Option(help="Who writes the questions: a model, or an OpenAI-compatible address.")] = None,
    share_documents: Annotated[
        bool, typer.Option("--share-documents", help="Let passages go to a teacher that is not this machine.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Train even on a language that the model does not know.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    set_: Settings = None,
    offline: Offline = False,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Documents in; a tuned model, a before/after report and a chat with citations out.

    Example: mygpt up ./handbook
    """
    from mygpt.artifacts.store import Store
    from mygpt.core.config import parse_settings, resolve
    from mygpt.core.run import Run
    from mygpt.pipelines.forecast import forecast
    from mygpt.pipelines.sources import sources_of_folder
    from mygpt.pipelines.up import UpConfig

    settings = {**parse_settings(set_ or []), **{k: v for k, v in (("model", model), ("minutes", minutes)) if v is not None}}
    config = resolve(UpConfig, settings)
    where = home_of(home, offline=offline)
    sources = sources_of_folder(where, folder, name)
    if dry_run:
        plan = forecast(config, sources=sources, home=where, retune=retune)
        show(plan, as_json=json, picture=lambda: "\n".join(f"{key}: {value}" for key, value in plan.items()))
        return
    from mygpt.pipelines.up import figures
    from mygpt.pipelines.up import up as make

    with (
        Store(where).exclusive(f"mygpt up {folder}"),
        Run(where, name=sources.name, seed=seed, listeners=(progress_view(),)) as run,
        run.step("up"),
    ):
        made = make(config, sources=sources, run=run, retune=retune, teacher=teacher, share_documents=share_documents, force=force)
    result = figures(made, run)
    show(result, as_json=json, picture=lambda: _up_picture(result, made))


def _up_picture(result: dict[str, Any], made: Any) -> Any:
    from rich.console import Group
    from rich.text import Text

    from mygpt.views.terminal import before_after_table

    lines: list[Any] = [Text()]
    if made.report is not None:
        lines.append(before_after_table(made.report.figures))
        lines.append(Text(f"Report  {result['report']}"))
    else:
        lines.append(Text(result["verdict"]["text"]))
    lines.append(
        Text.assemble(
            "Chat    ", (f"mygpt chat {result['name']}", "bold"), "   or in the browser: ", (f"mygpt serve {result['name']}", "bold")
        )
    )
    lines.append(Text(f"Lineage mygpt why {result['deployment']}"))
    if result["retune_seconds"] is not None:
        lines.append(Text("The documents changed: answers use them now, the model is as it was."))
        lines.append(Text(f"`--retune` trains anew, in about {duration(result['retune_seconds'])}."))
    return Group(*lines)


def add(
    file: Annotated[Path, typer.Argument(help="A document to answer from as well.")],
    to: Annotated[str | None, typer.Option("--to", help="Which name; default: the newest in this home.")] = None,
    home: Home = None,
    offline: Offline = False,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Add one document to what is answered from. The model stays as it is.

    Example: mygpt add prices-2027.pdf
    """
    from mygpt.artifacts.store import Store
    from mygpt.core.run import Run
    from mygpt.pipelines.sources import load_sources, newest_sources

    where = home_of(home, offline=offline)
    if not file.is_file():
        raise UsageError(f"{file} is not a file.", fix="Name one document; `mygpt up DIR` takes a folder.")
    sources = load_sources(where, to) if to else newest_sources(where)
    if sources is None:
        raise UsageError(f"There is no `{to}` in {where}.", fix="Begin with `mygpt up DIR`.")
    wider = sources.with_file(file)
    if dry_run:
        show({"name": wider.name, "sources": [str(p) for p in wider.paths]}, as_json=json)
        return
    from mygpt.pipelines.refresh import refresh

    started = time.perf_counter()
    with (
        Store(where).exclusive(f"mygpt add {file}"),
        Run(where, name=wider.name, listeners=(progress_view(),)) as run,
        run.step("add"),
    ):
        made = refresh(wider, added=file, run=run)
    deployment = made.deployment
    result = {
        "name": wider.name,
        "deployment": deployment.id,
        "model": deployment.model.digest,
        "adapter": deployment.adapter.digest if deployment.adapter else None,
        "index": deployment.index.id if deployment.index else None,
        "seconds": round(time.perf_counter() - started, 2),
        "retune_seconds": made.retune_seconds,
    }
    told = f"{file.name} is answered from now ({result['seconds']} s). The model is the same."
    if made.retune_seconds is not None:
        told += f"\n`mygpt up {wider.paths[0]} --retune` trains anew, in about {duration(made.retune_seconds)}."
    show(result, as_json=json, picture=lambda: told)


def chat(
    name: Name = None,
    question: Annotated[str | None, typer.Option("--question", "-q", help="Ask once and stop.")] = None,
    closed_book: Annotated[bool, typer.Option("--closed-book", help="Answer from the model alone, without the documents.")] = False,
    home: Home = None,
    offline: Offline = False,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Talk to what you made, in the terminal. Answers cite the passages they rest on.

    Example: mygpt chat handbook -q "When does the workshop open?"
    """
    from mygpt.pipelines.newest import newest_deployment

    where = home_of(home, offline=offline)
    deployment = newest_deployment(where, name)
    if dry_run:
        show({"deployment": deployment.id, "model": deployment.model.id}, as_json=json)
        return
    from mygpt.cli.talk import ask_once, talk

    if question is not None:
        ask_once(deployment, where, question, closed_book=closed_book, as_json=json)
    else:
        talk(deployment, where, closed_book=closed_book)


def serve(
    name: Name = None,
    host: Annotated[str, typer.Option(help="Address to listen on. Any but 127.0.0.1 needs --api-key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
    api_key: Annotated[str | None, typer.Option(envvar="MYGPT_SERVE_KEY", help="Require this key of every client.")] = None,
    home: Home = None,
    offline: Offline = False,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """The chat page and the OpenAI-compatible API, on this machine.

    Example: mygpt serve handbook --port 8080
    """
    from mygpt.pipelines.newest import newest_deployment

    where = home_of(home, offline=offline)
    deployment = newest_deployment(where, name)
    if dry_run:
        show({"deployment": deployment.id, "address": f"http://{host}:{port}"}, as_json=json)
        return
    from mygpt.pipelines.serving import serve_deployment

    serve_deployment(deployment, home=where, host=host, port=port, api_key=api_key, say=lambda line: typer.echo(line, err=True))
