"""A deployment behind the chat page and the API."""

from collections.abc import Callable
from pathlib import Path

from mygpt.artifacts.deployment import Deployment
from mygpt.core.run import Run
from mygpt.lm.sources import obtain
from mygpt.pipelines.deployment import Opened, open_deployment, recorded_embedder, warm_up
from mygpt.serve.api import create_app
from mygpt.serve.served import Served, SourceView
from mygpt.serve.server import serve


def serve_deployment(deployment: Deployment, *, home: Path, host: str, port: int, api_key: str | None, say: Callable[[str], None]) -> None:
    """Blocks until interrupted. Two names are served: with the documents, and `NAME-closed-book` without them."""
    run = Run(home, name=deployment.name)
    embedder = recorded_embedder(deployment) or obtain("minilm", run=run)
    opened = open_deployment(deployment, embedder=embedder, run=run)
    say(f"Loading {deployment.id} ...")
    warm_up(opened)
    app = create_app(
        served_models(deployment.name, opened),
        source_passage=source_passage(opened),
        home=home,
        title=deployment.name,
        suggestions=suggestions(deployment),
        allowed_hosts=("127.0.0.1", "localhost", "::1", host),
        api_key=api_key,
    )
    serve(app, host=host, port=port, on_ready=lambda address: say(f"Chat at {address}   API at {address}/v1   (Ctrl-C stops)"))


def served_models(name: str, opened: Opened) -> list[Served]:
    window, count = opened.engine.context_tokens, opened.engine.count_tokens
    names = [(name, opened.completer)] + ([(f"{name}-closed-book", opened.engine)] if opened.search else [])
    return [Served(called, completer, window, count, engine=opened.engine) for called, completer in names]


def source_passage(opened: Opened) -> Callable[[str, int, int], SourceView | None]:
    def view(document_id: str, start: int, end: int) -> SourceView | None:
        found = opened.search.source(document_id, start, end) if opened.search else None
        return SourceView(found.title, found.path, found.place, found.before, found.cited, found.after) if found else None

    return view


def suggestions(deployment: Deployment, number: int = 4) -> list[str]:
    """Short questions from the training set: the documents do answer them."""
    dataset = deployment.dataset
    rows = dataset.split("train") if dataset else []
    by_document = {row.facts.get("path", row.id): row.question for row in sorted(rows, key=lambda r: -abs(len(r.question) - 45))}
    return sorted(by_document.values(), key=lambda q: abs(len(q) - 45))[:number]
