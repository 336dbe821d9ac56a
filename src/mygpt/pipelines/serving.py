"""A deployment behind the chat page and the API."""

from collections.abc import Callable
from pathlib import Path

from mygpt.artifacts.dataset import Conversation
from mygpt.artifacts.deployment import Deployment
from mygpt.artifacts.search_index import SearchIndex
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import StreamingCompleter
from mygpt.infer.token_scores import TokenScorer
from mygpt.lm.sources import obtain
from mygpt.pipelines.deployment import Opened, open_deployment, recorded_embedder, warm_up
from mygpt.serve.api import create_app
from mygpt.serve.guards import LOOPBACK_HOSTS
from mygpt.serve.served import Served, SourceView
from mygpt.serve.server import serve

_AROUND = 700  # characters shown before and after what is cited


def serve_deployment(deployment: Deployment, *, home: Path, host: str, port: int, api_key: str | None, say: Callable[[str], None]) -> None:
    """Blocks until interrupted. Two names are served: with the documents, and `NAME-closed-book` without them."""
    with Run(home, name=deployment.name) as run:
        embedder = recorded_embedder(deployment) or obtain("minilm", run=run)
        opened = open_deployment(deployment, embedder=embedder, run=run)
        say(f"Loading {deployment.id} ...")
        warm_up(opened)
        app = create_app(
            served_models(deployment.name, opened),
            source_passage=source_passage(deployment.index),
            home=home,
            title=deployment.name,
            suggestions=suggestions(deployment),
            allowed_hosts=tuple(dict.fromkeys((*LOOPBACK_HOSTS, host))),
            api_key=api_key,
        )
        serve(app, host=host, port=port, on_ready=lambda address: say(f"Chat at {address}   API at {address}/v1   (Ctrl-C stops)"))


def served_models(name: str, opened: Opened) -> list[Served]:
    window, count = opened.engine.context_tokens, opened.engine.count_tokens
    names = [(name, opened.completer)] + ([(f"{name}-closed-book", opened.engine)] if opened.search else [])
    reserve, template = opened.context_reserve, opened.engine.renderer.template_digest

    def with_passages(conversation: Conversation) -> int:
        return count(conversation) + reserve

    def one(called: str, completer: StreamingCompleter) -> Served:
        if completer is not opened.engine:
            return Served(called, completer, window, with_passages, engine=opened.engine, template_digest=template)
        return Served(called, completer, window, count, TokenScorer(opened.engine), opened.engine, template)

    return [one(called, completer) for called, completer in names]


def source_passage(index: SearchIndex | None) -> Callable[[str, int, int], SourceView | None]:
    """A function that shows a cited stretch between the text around it, or None where there is no such place."""

    def view(document_id: str, start: int, end: int) -> SourceView | None:
        try:
            document = index.document(document_id) if index is not None else None
        except UsageError:
            return None
        if index is None or document is None or not 0 <= start < end <= len(document.text):
            return None
        text = document.text
        before, after = text[max(0, start - _AROUND) : start], text[end : end + _AROUND]
        return SourceView(document.title, document.path, index.place(document_id, start), before, text[start:end], after)

    return view


def suggestions(deployment: Deployment, number: int = 4) -> list[str]:
    """Short questions from the training set: the documents do answer them."""
    dataset = deployment.dataset
    rows = dataset.split("train") if dataset else []
    by_document = {row.facts.get("path", row.id): row.question for row in sorted(rows, key=lambda r: -abs(len(r.question) - 45))}
    return sorted(by_document.values(), key=lambda q: abs(len(q) - 45))[:number]
