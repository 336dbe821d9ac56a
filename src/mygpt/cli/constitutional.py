"""`mygpt constitutional`: a model held to written principles, from its own critiques to the measured difference."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mygpt.cli.options import DryRun, Home, Json, Offline, Settings, home_of, progress_view, show


def constitutional(
    model: Annotated[str, typer.Argument(help="An alias, a folder, a .gguf file or a hub name.")] = "smollm2-135m",
    critic: Annotated[str | None, typer.Option(help="Who criticises and revises: a model or an address. Default: the model.")] = None,
    judge: Annotated[str | None, typer.Option(help="Who compares: MODEL[+ADAPTER], or an address with log-probabilities.")] = None,
    prompts: Annotated[str | None, typer.Option(help="A dataset of requests. Default: our own.")] = None,
    helpful: Annotated[str | None, typer.Option(help="A dataset of harmless requests. Default: our own.")] = None,
    constitution_file: Annotated[Path | None, typer.Option(help="Principles of your own (YAML).")] = None,
    share_documents: Annotated[
        bool, typer.Option("--share-documents", help="Let requests of yours go to a critic or judge that is not this machine.")
    ] = False,
    home: Home = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    set_: Settings = None,
    offline: Offline = False,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Answers, critiques, revisions, training, a judge's preferences, learning from them; then what it changed.

    Example: mygpt constitutional smollm2-135m --critic http://127.0.0.1:8000/v1
    """
    from mygpt.align.constitution import open_constitution
    from mygpt.artifacts.store import Store
    from mygpt.cli.recipe_call import open_inputs, recipe_inputs
    from mygpt.core.config import parse_settings, resolve
    from mygpt.core.run import Run
    from mygpt.pipelines.constitutional import ConstitutionalConfig
    from mygpt.pipelines.constitutional import constitutional as run_all

    config = resolve(ConstitutionalConfig, parse_settings(set_ or []))
    read = open_constitution(config.constitution, constitution_file)
    options = {"model": model, "critic": critic, "judge": judge, "prompts": prompts, "helpful": helpful}
    given = {name: [value] for name, value in options.items() if value is not None}
    if constitution_file is not None:
        given["constitution_file"] = [str(constitution_file)]
    if dry_run:
        plan = {"constitution": read.name, "principles": len(read.principles), **{k: v[0] for k, v in given.items()}}
        show({**plan, "config": config.model_dump(mode="json")}, as_json=True)
        return
    store = Store(home_of(home, offline=offline))
    name = f"{Path(model).name}-{read.id}"
    with store.exclusive("mygpt constitutional"), Run(store.home, name=name, seed=seed, listeners=(progress_view(),)) as run:
        opened = open_inputs(store, run, recipe_inputs(run_all), given, share_documents=share_documents)
        made = run_all(config, **opened, run=run)
    result: dict[str, Any] = {
        **{part: getattr(made, part).id for part in ("revisions", "revised", "preferences", "aligned", "report")},
        "page": str(made.report.page),
        "headline": made.report.figures["headline"],
        "tasks": {task["task"]: task["models"] for task in made.report.figures["tasks"]},
        "forgotten": {"bpb": made.forgotten.bpb.estimate, "right_base": made.forgotten.right_base, "right": made.forgotten.right_tuned},
        "judge": made.preferences.manifest.facts["sentences"],
    }
    show(result, as_json=json, picture=lambda: _picture(result))


def _picture(result: dict[str, Any]) -> str:
    lines = [*result["judge"], result["headline"]]
    lines += [f"{part:<12}{result[part]}" for part in ("revisions", "revised", "preferences", "aligned")]
    return "\n".join([*lines, f"Report      {result['page']}", f"Lineage     mygpt why {result['aligned']}"])
