"""A race in the terminal: which to take, then every contender with its score, its cost and what it forgot. Fits 100 columns."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mygpt.views.numbers import decimal, duration, grouped, signed


def race_table(figures: Mapping[str, Any]) -> RenderableType:
    choice = figures["choice"]
    parts: list[RenderableType] = [Text(choice["headline"], style="bold"), *(Text(sentence) for sentence in choice["sentences"]), Text()]
    shown = figures["sets"][figures["deciding_set"]]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for column in ("token F1", "over base, 95 %", "read", "ms", "weights", "training", "memory", "forgot"):
        table.add_column(column, justify="right", header_style="dim", no_wrap=True)
    table.add_column("", no_wrap=True)
    for contender in figures["contenders"]:
        name, arm, cost = contender["contender"], contender["sets"][figures["deciding_set"]], contender["cost"]
        over, lost, memory = arm["over_base"], contender["forgetting"], cost["peak_memory_bytes"]
        table.add_row(
            contender["label"],
            decimal(arm["f1"]),
            f"{signed(over['low'])} to {signed(over['high'])}" if over else "–",
            decimal(cost["prompt_tokens"], 0),
            grouped(cost["ms_per_answer"]),
            grouped(cost["trainable"]) if contender["trained"] else "–",
            duration(cost["train_seconds"]) if contender["trained"] else "–",
            f"{decimal(memory / 1e9)} GB" if memory else "–",
            signed(lost["bpb"]["estimate"], 3) if lost else "–",
            "take it" if name == figures["recommended"] else "best" if name == shown["best"] else "keeps up" if arm["keeps_up"] else "",
            style="bold" if name == figures["recommended"] else None,
        )
    parts.append(table)
    parts += [Text(f"{one['label']} took no part: {one['reason']}", style="yellow") for one in figures["not_run"]]
    return Group(*parts)
