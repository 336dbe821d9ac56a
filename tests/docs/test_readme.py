"""Prose is executed: the README's figures come from the results, its commands exist, its links lead somewhere."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from benchmarks.readme import README, with_table
from mygpt.cli.main import build

ROOT = README.parent
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_table_of_figures_is_made_from_the_results() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_table(text) == text, "run `make docs`"


def test_the_first_screen_shows_the_two_commands() -> None:
    first_screen = "\n".join(README.read_text(encoding="utf-8").splitlines()[:25])
    assert "make demo" in first_screen
    assert "make test" in first_screen


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    """Every `mygpt VERB` and `mygpt STAGE TECHNIQUE` in a code span or block is one that the program has."""
    group: Any = build()
    context = typer.Context(group)
    for verb, technique in re.findall(
        r"(?:^\$ |`)(?:\.venv/bin/)?mygpt ([a-z_]+)(?: ([a-z_0-9]+))?", page.read_text(encoding="utf-8"), re.MULTILINE
    ):
        command = group.get_command(context, verb)
        assert command is not None, verb
        if hasattr(command, "commands") and technique:
            assert technique in command.commands, f"{verb} {technique}"
