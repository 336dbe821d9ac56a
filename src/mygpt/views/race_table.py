"""A race in the terminal: which to take, every contender's score, and what each costs and forgot. Fits 80 columns."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mygpt.views.numbers import decimal, duration, grouped, signed


def race_table(figures: Mapping[str, Any]) -> RenderableType:
    choice = figures["choice"]
    parts: list[RenderableType] = [Text(choice["headline"], style="bold"), *(Text(sentence) for sentence in choice["sentences"])]
    parts += [Text(), _scores(figures), Text(), _costs(figures)]
    if figures["not_run"]:
        parts.append(Text())
    parts += [Text(f"{one['label']} took no part: {one['reason']}", style="yellow") for one in figures["not_run"]]
    return Group(*parts)


def _scores(figures: Mapping[str, Any]) -> Table:
    shown = figures["sets"][figures["deciding_set"]]
    table = _table("token F1", "over base, 95 %", "behind best, 95 %")
    table.add_column("", no_wrap=True)
    for contender in figures["contenders"]:
        name, arm = contender["contender"], contender["sets"][figures["deciding_set"]]
        said = "take it" if name == figures["recommended"] else "best" if name == shown["best"] else "keeps up" if arm["keeps_up"] else ""
        row = (contender["label"], decimal(arm["f1"]), _limits(arm["over_base"]), _limits(arm["behind_best"]), said)
        table.add_row(*row, style="bold" if name == figures["recommended"] else None)
    return table


def _costs(figures: Mapping[str, Any]) -> Table:
    table = _table("read", "ms", "weights", "training", "memory", "forgot")
    for contender in figures["contenders"]:
        cost, lost = contender["cost"], contender["forgetting"]
        memory, trained = cost["peak_memory_bytes"], contender["trained"]
        table.add_row(
            contender["label"],
            decimal(cost["prompt_tokens"], 0),
            grouped(cost["ms_per_answer"]),
            grouped(cost["trainable"]) if trained else "–",
            duration(cost["train_seconds"]) if trained else "–",
            f"{decimal(memory / 1e9)} GB" if memory else "–",
            signed(lost["bpb"]["estimate"], 3) if lost else "–",
            style="bold" if contender["contender"] == figures["recommended"] else None,
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", header_style="dim", no_wrap=True)
    return table


def _limits(interval: Mapping[str, float] | None) -> str:
    return f"{signed(interval['low'])} to {signed(interval['high'])}" if interval else "–"
