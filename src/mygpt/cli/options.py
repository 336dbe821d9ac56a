"""What every command shares: options, and how a result reaches the user (a picture for people, JSON for programs)."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from mygpt.core.home import find_home
from mygpt.core.outbound import go_offline

Home = Annotated[
    Path | None, typer.Option("--home", help="Where work is kept. Default: $MYGPT_HOME, else the nearest .mygpt/, else ~/.mygpt.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the machine-readable result on stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, made and spent, and do nothing.")]
Offline = Annotated[bool, typer.Option("--offline", help="Open no connection.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting, for example sft.learning_rate=2e-4. May be repeated.")
]


def home_of(given: Path | None, *, offline: bool = False) -> Path:
    if offline:
        go_offline()
    return find_home(given)


def show(result: Any, *, as_json: bool, picture: Callable[[], Any] | None = None) -> None:
    """JSON on stdout when asked for, else `picture()`: a string or a rich renderable."""
    if as_json:
        sys.stdout.write(json.dumps(result, ensure_ascii=False, indent=1, default=str) + "\n")
        return
    from rich.console import Console

    shown = picture() if picture is not None else json.dumps(result, ensure_ascii=False, indent=1, default=str)
    Console(highlight=False, soft_wrap=isinstance(shown, str)).print(shown, markup=False) if isinstance(shown, str) else Console(
        highlight=False
    ).print(shown)


def progress_view() -> Any:
    """Progress goes to stderr, so that stdout holds results only."""
    from rich.console import Console

    from mygpt.views.terminal import TerminalView

    return TerminalView(Console(stderr=True, highlight=False, no_color="NO_COLOR" in os.environ))
