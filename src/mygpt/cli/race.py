"""`mygpt race`: which way of answering pays, on your own questions."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mygpt.cli.options import DryRun, Home, Json, Offline, Settings, home_of, progress_view, show
from mygpt.core.errors import UsageError


def race(
    name: Annotated[str | None, typer.Argument(metavar="NAME-or-DIR", help="What `mygpt up` made; default: the newest here.")] = None,
    dataset: Annotated[str | None, typer.Option(help="A dataset with held-out questions, instead of a name.")] = None,
    model: Annotated[str | None, typer.Option(help="The base. Default: that of the name, else smollm2-135m.")] = None,
    index: Annotated[str | None, typer.Option(help="A search index for retrieval. Default: that of the name, or of the dataset.")] = None,
    home: Home = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute it even if the store holds it.")] = False,
    set_: Settings = None,
    offline: Offline = False,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Prompting, retrieval and methods of tuning on your own questions at equal budget; says which one to take.

    Example: mygpt race handbook --set contenders=[few_shot,lora,prefix]
    """
    from mygpt.artifacts.store import Store
    from mygpt.core.config import parse_settings, resolve
    from mygpt.core.run import Run
    from mygpt.pipelines.race import RaceConfig, contenders_of, forecast
    from mygpt.pipelines.race import race as run_race
    from mygpt.pipelines.race_entry import at_hand, entry_of

    if name is not None and dataset is not None:
        raise UsageError(f"A name (`{name}`) and a dataset (`{dataset}`) were given.", fix="Give one of them.")
    config = resolve(RaceConfig, parse_settings(set_ or []))
    contenders_of(config)
    store = Store(home_of(home, offline=offline))
    entry = entry_of(store, name=name, dataset=dataset, model=model, index=index)
    if dry_run:
        plan = forecast(config, dataset=entry.dataset, index=entry.index, model=at_hand(store, entry))
        shown = {**plan, "training": "", **{f"  {name}": found["needs"] for name, found in plan["training"].items()}}
        show(plan, as_json=json, picture=lambda: "\n".join(f"{key}: {value}" for key, value in shown.items()))
        return
    run = Run(store.home, name=f"{entry.name}-race", seed=seed, listeners=(progress_view(),), fresh=fresh)
    with run, store.exclusive(f"mygpt race {entry.name}"), run.step("race"):
        report = run_race(config, entered=entry.opened(run), run=run)
    result: dict[str, Any] = {"id": report.id, "page": str(report.page), **report.figures}
    show(result, as_json=json, picture=lambda: _picture(result))


def _picture(result: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.text import Text

    from mygpt.views.race_table import race_table

    return Group(Text(), race_table(result), Text(f"Report  {Path(result['page'])}"), Text(f"Lineage mygpt why {result['id']}"))
