"""A run in the terminal: its event stream as live progress, and the before/after table at the end.

    run = Run(home, name="handbook", listeners=(TerminalView(Console(stderr=True)),))

In a terminal, steps move while they go and leave one line each: a check mark and the seconds, dimmed when nothing had to be done.
Anywhere else each step writes plain lines, with its progress at most every ten seconds.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from mygpt.views.numbers import decimal, duration, grouped, percent, signed

_PLAIN_EVERY_SECONDS = 10.0
_TITLES = {"knowledge": "Documents it studied", "generalisation": "Documents it never saw"}
_PROGRESS_FIELDS = {"time", "event", "step", "done", "total", "unit", "rate_per_second", "eta_seconds"}


@dataclass
class _Step:
    name: str
    started: float
    spinner: Spinner = field(default_factory=lambda: Spinner("dots", style="cyan"))
    progress: dict[str, Any] = field(default_factory=dict)  # the newest event
    num_counted: int = 0  # things counted one after the other, each from its own zero
    cached: bool = False  # something was taken from the store
    published: bool = False  # something was made
    last_plain: float = 0.0


class TerminalView:
    """A Listener: call it with each event of a run."""

    def __init__(self, console: Console):
        self._console = console
        self._steps: list[_Step] = []
        self._live: Live | None = None
        self._lock = threading.RLock()

    def __call__(self, event: Mapping[str, Any]) -> None:
        with self._lock:
            handle = getattr(self, f"_on_{event['event']}", None)
            if handle is not None:
                handle(event)
            if self._live is not None:
                self._live.update(self._picture())

    def close(self) -> None:
        """Give the terminal back; also done when the outermost step ends."""
        with self._lock:
            if self._live is not None:
                self._live.stop()
                self._live = None

    # -- one method per kind of event ---------------------------------------------------------------------------------------

    def _on_step_started(self, event: Mapping[str, Any]) -> None:
        self._steps.append(_Step(event["step"], event["time"], last_plain=event["time"]))
        if not self._console.is_terminal:
            self._line(f"{self._indent(-1)}... {escape(event['step'])}")
        elif self._live is None:
            self._live = Live(self._picture(), console=self._console, transient=True, refresh_per_second=10)
            self._live.start()

    def _on_step_finished(self, event: Mapping[str, Any]) -> None:
        step = next((s for s in reversed(self._steps) if s.name == event["step"]), None)
        if step is None:
            return
        indent = self._indent(self._steps.index(step))
        del self._steps[self._steps.index(step) :]
        if not self._steps:
            self.close()
        name, seconds = escape(step.name), duration(event["seconds"])
        if event.get("failed"):
            self._line(f"{indent}[red]✗[/] {name}  [dim]stopped after {seconds}[/]")
        elif step.cached and not step.published:
            self._line(f"{indent}[dim]✓ {name}  unchanged[/]")
        else:
            amount = f"  {_amount(step.progress)}" if step.num_counted == 1 else ""
            self._line(f"{indent}[green]✓[/] {name}  [dim]{seconds}{escape(amount)}[/]")

    def _on_step_cached(self, event: Mapping[str, Any]) -> None:
        for step in self._steps:
            step.cached = True

    def _on_published(self, event: Mapping[str, Any]) -> None:
        for step in self._steps:
            step.published = True

    def _on_progress(self, event: Mapping[str, Any]) -> None:
        step = next((s for s in reversed(self._steps) if s.name == event["step"]), None)
        if step is None:
            return
        if not step.progress or event["done"] < step.progress["done"] or event["unit"] != step.progress["unit"]:
            step.num_counted += 1
        step.progress = dict(event)
        if not self._console.is_terminal and event["time"] - step.last_plain >= _PLAIN_EVERY_SECONDS:
            step.last_plain = event["time"]
            self._line(f"{self._indent(self._steps.index(step))}    {escape(step.name)}: {_how_far(event)}")

    def _on_note(self, event: Mapping[str, Any]) -> None:
        self._line(f"{self._indent(len(self._steps))}[dim]{escape(event['text'])}[/]")

    def _on_warning(self, event: Mapping[str, Any]) -> None:
        self._line(f"{self._indent(len(self._steps))}[yellow]! {escape(event['text'])}[/]")

    def _on_trained_example(self, event: Mapping[str, Any]) -> None:
        """One example as the model sees it: what is trained in green."""
        indent = self._indent(len(self._steps))
        self._line(f"{indent}One of {event['examples']} examples; [green]green[/] is trained:")
        example = Text.assemble(*((part["text"], "green" if part["trained"] else "dim") for part in event["parts"]))
        example.rstrip()
        for line in example.split("\n"):
            self._console.print(Text(f"{indent}  ").append_text(line), soft_wrap=not self._console.is_terminal)

    def _on_run_failed(self, event: Mapping[str, Any]) -> None:
        self.close()

    def _on_run_finished(self, event: Mapping[str, Any]) -> None:
        self.close()

    # -- drawing ----------------------------------------------------------------------------------------------------------

    def _line(self, markup: str) -> None:
        self._console.print(markup, highlight=False, soft_wrap=not self._console.is_terminal)

    def _indent(self, depth: int) -> str:
        return "  " * (depth if depth >= 0 else len(self._steps) + depth)

    def _picture(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        table.add_column(min_width=1)
        table.add_column(no_wrap=True, min_width=max((len(s.name) + 2 * depth for depth, s in enumerate(self._steps)), default=0))
        table.add_column()
        table.add_column(no_wrap=True)
        width = 24 if self._console.width >= 110 else 10
        for depth, step in enumerate(self._steps):
            name = Text("  " * depth) + Text(step.name)
            total, done = step.progress.get("total"), step.progress.get("done", 0)
            bar: RenderableType = ProgressBar(total=total, completed=done, width=width) if total else ""
            table.add_row(step.spinner, name, bar, Text(_how_far(step.progress), style="dim") if step.progress else "")
        return table


def _how_far(progress: Mapping[str, Any]) -> str:
    """`1 200 of 4 800 tokens · 431 tokens/s · 8 s left · loss 1.234`"""
    parts = [_amount(progress)]
    if progress.get("eta_seconds") is not None:
        parts.append(f"{duration(progress['eta_seconds'])} left")
    extra = {key: value for key, value in progress.items() if key not in _PROGRESS_FIELDS}
    parts += [
        f"{key.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{key.replace('_', ' ')} {value}"
        for key, value in extra.items()
    ]
    return " · ".join(parts)


def _amount(progress: Mapping[str, Any]) -> str:
    """`1 200 of 4 800 tokens · 431 tokens/s`; bytes in megabytes; all of it without the `of`"""
    done, total, rate, unit = progress["done"], progress.get("total"), progress["rate_per_second"], progress["unit"]
    if unit == "bytes":
        done, total, rate, unit = done / 1e6, total and total / 1e6, rate / 1e6, "MB"
    of = f" of {grouped(total)}" if total and done < total else ""
    return f"{grouped(done)}{of} {unit} · {grouped(rate) if rate >= 10 else decimal(rate, 1)} {unit}/s"


def before_after_table(figures: Mapping[str, Any]) -> RenderableType:
    """The report's figures for the end of a run: the verdict, then the arms on each set. Fits 80 columns."""
    verdict = figures["verdict"]
    parts: list[RenderableType] = [Text(verdict["headline"], style="bold"), *(Text(sentence) for sentence in verdict["sentences"])]
    for name, shown in figures["sets"].items():
        doubt = ", interval unreliable" if shown.get("reliable") is False else ""  # reports of older versions do not say
        parts += [Text(), Text(f"{_TITLES[name]}: {shown['items']} questions{doubt}", style="bold"), _arms_table(shown)]
    return Group(*parts)


def _arms_table(shown: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for column in ("token F1", "over base, 95 %", "ROUGE-L", "exact", "tokens", "cut"):
        table.add_column(column, justify="right", header_style="dim", no_wrap=True)
    table.add_column("", no_wrap=True)
    for arm in shown["arms"]:
        over, best = arm["over_base"], arm["arm"] == shown["best"]
        table.add_row(
            arm["label"],
            decimal(arm["f1"]),
            f"{signed(over['low'])} to {signed(over['high'])}" if over else "–",
            decimal(arm["rouge_l"]),
            percent(arm["exact_match"]),
            decimal(arm["answer_tokens"], 0),
            percent(arm["share_cut"]),
            "best" if best else "keeps up" if arm["arm"] == shown["cheapest"] else "",
            style="bold" if best else None,
        )
    return table
