"""`mygpt studio annotate A B ...`: the page on which people rank answers. The pages themselves are in `mygpt.studio`."""

from typing import Annotated

import typer

from mygpt.cli.evaluation import labels_of, predictions_meant
from mygpt.cli.options import DryRun, Home, Json, home_of
from mygpt.cli.options import show as show_result
from mygpt.core.errors import UsageError


def add_studio(app: typer.Typer) -> None:
    group = typer.Typer(help="Pages to work on in a browser: annotate.", no_args_is_help=True)
    group.command()(annotate)
    group.callback()(_group)
    app.add_typer(group, name="studio")


def _group() -> None:
    """Keeps `annotate` a word of its own while it is the only one."""


def annotate(
    references: Annotated[
        list[str], typer.Argument(metavar="A B ...", help="Predictions of two systems to nine, as LABEL=REF or REF; or candidates.")
    ],
    name: Annotated[str, typer.Option(help="What to call the ratings. The same name goes on where rating stopped.")],
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8081,
    seed: Annotated[int, typer.Option(help="Seed of the order of items and answers.")] = 0,
    home: Home = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """People rank several answers to each prompt, blind; Ctrl-C publishes what they said.

    The answers are those of several systems to one task, or of `mygpt align candidates`.
    Example: mygpt studio annotate base tuned --name handbook
    """
    from mygpt.artifacts.ratings import Ratings
    from mygpt.artifacts.store import Store
    from mygpt.studio.annotate import annotate as serve_page
    from mygpt.studio.rating_box import RatingBox, items_of

    store = Store(home_of(home))
    found = [one for reference in references for one in predictions_meant(store, reference)]
    labels = labels_of(found)
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        fix = "Give each by the id of its predictions, as LABEL=ID (`mygpt show`)."
        raise UsageError(f"`{twice[0]}` stands for {labels.count(twice[0])} sets of answers, and one is rated at a time.", fix=fix)
    items = items_of({label: predictions for label, (_, predictions) in zip(labels, found, strict=True)})
    box = RatingBox(items, home=store.home, name=name, seed=seed)  # refuses what cannot be rated, before a page is shown
    systems = labels if len(labels) > 1 else sorted({system for item in items for system in item.answers})
    plan = {"name": name, "items": len(box.items), "systems": systems, "address": f"http://127.0.0.1:{port}"}
    if dry_run:
        show_result(plan, as_json=True)
        return

    def invite(address: str) -> None:
        typer.echo(f"Open {address} and rate {len(items)} items. Ctrl-C ends it and publishes the ratings.", err=True)

    serve_page(items, home=store.home, name=name, seed=seed, port=port, on_ready=invite)
    made = store.lookup(name, kind=Ratings.kind)
    ratings = Ratings(made, store) if made else None
    told = f"Ratings {ratings.id}" if ratings else "Nothing was rated."
    show_result({**plan, "ratings": ratings.id if ratings else None}, as_json=json, picture=lambda: told)

