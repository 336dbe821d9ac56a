"""`mygpt aligned`: from preferences to a better model, and whether it is better."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mygpt.cli.options import DryRun, Home, Json, Offline, Settings, home_of, progress_view, show


def aligned(
    dataset: Annotated[str, typer.Argument(metavar="PREFERENCES", help="A dataset of preferences, with held-out prompts in `test`.")],
    model: Annotated[str, typer.Option(help="What is aligned: an instruction-tuned model, or your tuned one.")] = "smollm2-135m",
    name: Annotated[str | None, typer.Option(help="Of what is made. Default: that of the dataset.")] = None,
    home: Home = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute it even if the store holds it.")] = False,
    set_: Settings = None,
    offline: Offline = False,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Reward model, PPO and a gate, on held-out prompts, by a judge that PPO never met.

    The exit code is 0 whatever the gate says, as with `up`: its word is printed, and is `gate.outcome` of --json.

    Example: mygpt aligned answers --model handbook --set ppo.rollouts=30
    """
    from mygpt.artifacts.dataset import Dataset
    from mygpt.artifacts.store import Store
    from mygpt.core.config import parse_settings, resolve
    from mygpt.core.run import Run
    from mygpt.lm.sources import at_hand, obtain
    from mygpt.pipelines.aligned import AlignedConfig, figures, forecast
    from mygpt.pipelines.aligned import aligned as run_aligned

    config = resolve(AlignedConfig, parse_settings(set_ or []))
    store = Store(home_of(home, offline=offline))
    preferences = Dataset.open(store, dataset)
    if dry_run:
        plan = forecast(config, dataset=preferences, model=at_hand(store, model))
        needs = {f"  {step}": found["needs"] for step, found in plan["training"].items()}
        shown = {**plan, "training": "" if needs else f"not known before {model} is there", **needs}
        show(plan, as_json=json, picture=lambda: "\n".join(f"{key}: {value}" for key, value in shown.items()))
        return
    run = Run(store.home, name=name or preferences.name, seed=seed, listeners=(progress_view(),), fresh=fresh)
    with run, store.exclusive(f"mygpt aligned {run.name}"), run.step("aligned"):
        result = run_aligned(config, model=obtain(model, run=run), dataset=preferences, run=run)
        found = figures(result, run)
    show(found, as_json=json, picture=lambda: _picture(found))


def _picture(found: dict[str, Any]) -> str:
    lines = [found["headline"] + ".", *found["sentences"], "", found["gate"]["headline"], f"Report  {Path(found['report'])}"]
    return "\n".join([*lines, f"Policy  {found['policy']}", f"Lineage mygpt why {found['policy']}"])
