"""`mygpt STAGE TECHNIQUE`: one command per recipe of the catalogue. Its module is imported only when the command runs."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from mygpt.catalog import TECHNIQUES, Technique

_STAGES = ("plan", "data", "pretrain", "finetune", "align", "evaluate", "compress", "prompt", "rag")
_SENTENCE = re.compile(r".*?[.?!](?=\s|$)", re.DOTALL)


class TechniqueGroup(TyperGroup):
    """What its commands do is read from their modules when help is asked for, not whenever the program starts."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        for technique in recipes_of(self.name or ""):
            command = self.commands[technique.name]
            command.short_help = command.help or first_sentence(technique)
        super().format_help(ctx, formatter)


def add_stages(app: typer.Typer) -> None:
    for stage in _STAGES:
        recipes = recipes_of(stage)
        if not recipes:
            continue
        group = typer.Typer(cls=TechniqueGroup, help=f"Techniques: {', '.join(t.name for t in recipes)}.", no_args_is_help=True)
        for technique in recipes:
            group.command(
                technique.name,
                add_help_option=False,
                context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
            )(_caller(technique))
        app.add_typer(group, name=stage)


def recipes_of(stage: str) -> list[Technique]:
    return [t for t in TECHNIQUES if t.stage == stage and t.path.rpartition(":")[2][0].islower()]


def first_sentence(technique: Technique) -> str:
    """Of its module's docstring, which is read without being run."""
    found = find_spec(technique.path.partition(":")[0])
    assert found is not None and found.origin is not None
    text = ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8"))) or ""
    sentence = _SENTENCE.match(text)
    assert sentence is not None, f"{technique.path} does not say what it does"
    return " ".join(sentence[0].split())


def _caller(technique: Technique) -> Any:
    def call(context: typer.Context) -> None:
        from mygpt.cli.recipe_call import call_recipe

        call_recipe(technique, list(context.args))

    return call
