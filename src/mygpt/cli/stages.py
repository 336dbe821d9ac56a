"""`mygpt STAGE TECHNIQUE`: one command per recipe of the catalogue. Its module is imported only when the command runs."""

from typing import Any

import typer

from mygpt.catalog import TECHNIQUES, Technique

_STAGES = ("plan", "data", "pretrain", "finetune", "align", "evaluate", "compress", "prompt", "rag")


def add_stages(app: typer.Typer) -> None:
    for stage in _STAGES:
        recipes = [t for t in TECHNIQUES if t.stage == stage and t.path.rpartition(":")[2][0].islower()]
        if not recipes:
            continue
        group = typer.Typer(help=f"Techniques: {', '.join(t.name for t in recipes)}.", no_args_is_help=True)
        for technique in recipes:
            group.command(
                technique.name,
                help=f"{technique.paper}. Page: {technique.page}. See `mygpt {stage} {technique.name} --help`.",
                add_help_option=False,
                context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
            )(_caller(technique))
        app.add_typer(group, name=stage)


def _caller(technique: Technique) -> Any:
    def call(context: typer.Context) -> None:
        from mygpt.cli.recipe_call import call_recipe

        call_recipe(technique, list(context.args))

    return call
