"""Chat in the terminal: answers as they come, with numbered citations below."""

import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.deployment import Deployment
from mygpt.cli.options import show
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer, Sampling, StreamingCompleter
from mygpt.lm.sources import obtain
from mygpt.pipelines.deployment import Opened, open_deployment, recorded_embedder, warm_up

_SAMPLING = Sampling(max_tokens=256)


def ask_once(deployment: Deployment, home: Path, question: str, *, closed_book: bool, as_json: bool) -> None:
    with Run(home, name=deployment.name) as run:
        completer = _opened(deployment, closed_book=closed_book, run=run).completer
        (answer,) = completer.complete([Conversation((Message("user", question),))], _SAMPLING)
    citations = [
        {"path": c.path, "place": c.span.place, "quote": c.quote, "start": c.span.start, "end": c.span.end} for c in answer.citations
    ]
    result = {"answer": answer.text, "abstained": answer.finish_reason == "abstained", "citations": citations}
    show(result, as_json=as_json, picture=lambda: Text.assemble(answer.text, "\n", *_footnotes(answer)))


def talk(deployment: Deployment, home: Path, *, closed_book: bool) -> None:
    console = Console(highlight=False)
    console.print(f"[dim]Loading {deployment.id} ...[/dim]")
    with Run(home, name=deployment.name) as run:
        opened = _opened(deployment, closed_book=closed_book, run=run)
        warm_up(opened)
        console.print(
            f"[bold]{deployment.name}[/bold] [dim]runs on this machine; nothing leaves it.\n"
            "/new begins again, Ctrl-D ends, Ctrl-C stops an answer.[/dim]"
        )
        _converse(console, opened.completer)


def _converse(console: Console, completer: StreamingCompleter) -> None:
    turns: list[Message] = []
    while True:
        try:
            question = console.input("\n[bold cyan]you[/bold cyan]  ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if question == "/new":
            turns = []
            continue
        if not question:
            continue
        turns.append(Message("user", question))
        answer = _streamed(console, completer, Conversation(tuple(turns)))
        turns.append(Message("assistant", answer.text))


def _streamed(console: Console, completer: StreamingCompleter, conversation: Conversation) -> Answer:
    said, answer = "", None
    console.print()
    pieces = completer.stream(conversation, _SAMPLING)
    try:
        for piece in pieces:
            if isinstance(piece, Answer):
                answer = piece
            else:
                said += piece
                sys.stdout.write(piece)
                sys.stdout.flush()
    except KeyboardInterrupt:
        pieces.close()  # type: ignore[attr-defined]
    answer = answer or Answer(said, "cancelled")
    if not said:
        sys.stdout.write(answer.text)
    sys.stdout.write("\n")
    console.print(Text.assemble(*_footnotes(answer)), end="")
    return answer


def _footnotes(answer: Answer) -> list[tuple[str, str]]:
    """One line per citation, and a word on what nothing supports."""
    lines = []
    for number, citation in enumerate(answer.citations, start=1):
        place = f", {citation.span.place}" if citation.span.place else ""
        lines.append((f"[{number}] {citation.path}{place}: “{' '.join(citation.quote.split())}”\n", "green"))
    if answer.unsupported and answer.finish_reason != "abstained":
        share = f"{len(answer.unsupported)} sentence{'s' if len(answer.unsupported) > 1 else ''}"
        lines.append((f"{share} not found in your documents.\n", "yellow"))
    return lines


def _opened(deployment: Deployment, *, closed_book: bool, run: Run) -> Opened:
    embedder = None if closed_book else recorded_embedder(deployment) or obtain("minilm", run=run)
    return open_deployment(deployment, embedder=embedder, run=run)
