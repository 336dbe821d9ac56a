"""`mygpt eval MODEL ... --task NAME`; `mygpt evaluate compare A B ...`, `mygpt evaluate gate --policy FILE`, `mygpt evaluate card REF`.

A, B, candidate and baseline are predictions: by id, digest or `name:tag`; a bare name stands for the newest of that name on each task.
`LABEL=REF` says what to call the model. With `--task`, what `compare` finds no predictions of is a model or an address: measured first.
"""

import json as json_text
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mygpt.cli.options import DryRun, Home, Json, Offline, Settings, home_of, progress_view
from mygpt.cli.options import show as show_result
from mygpt.core.errors import UsageError

Fresh = Annotated[bool, typer.Option("--fresh", help="Compute it even if the store holds it.")]
Seed = Annotated[int, typer.Option(help="Seed of the resampling.")]
Name = Annotated[str | None, typer.Option(help="What to call the report.")]
_NOT_SHIPPED = 3


def add_evaluation(app: typer.Typer) -> None:
    """After the commands that follow from recipes, into their group: `gate` here takes the place of the derived one."""
    app.command("eval")(measure)
    group = next(g.typer_instance for g in app.registered_groups if g.name == "evaluate")
    assert group is not None
    for command in (compare, gate, card):
        group.command()(command)


def measure(
    models: Annotated[list[str], typer.Argument(metavar="MODEL ...", help="MODEL[+ADAPTER], or an OpenAI-compatible address.")],
    task: Annotated[list[str], typer.Option(help="A task of this home (`mygpt evaluate tasks` makes one). May be repeated.")],
    home: Home = None,
    seed: Seed = 0,
    set_: Settings = None,
    share_documents: Annotated[bool, typer.Option("--share-documents", help="Let items go to a model that is not this machine.")] = False,
    offline: Offline = False,
    fresh: Fresh = False,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Models on tasks: every item kept, scores with intervals, and a comparison where there are several models.

    Example: mygpt eval smollm2-135m smollm2-135m+handbook --task t0_ag_news
    """
    from mygpt.artifacts.store import Store
    from mygpt.artifacts.task import Task
    from mygpt.core.config import parse_settings, resolve
    from mygpt.core.run import Run
    from mygpt.evaluate.compare_models import CompareConfig, compare_models
    from mygpt.evaluate.harness import RunTaskConfig
    from mygpt.evaluate.paired_difference import Resampling, score
    from mygpt.evaluate.same_items import join
    from mygpt.metrics.bootstrap import interval_is_reliable

    store = Store(home_of(home, offline=offline))
    config = resolve(RunTaskConfig, parse_settings(set_ or []))
    tasks = [Task.open(store, name) for name in task]
    if dry_run:
        show_result({"models": models, "tasks": [t.id for t in tasks], "config": config.model_dump(mode="json")}, as_json=True)
        return
    require_sharing_of(tasks, models, share_documents=share_documents)
    found, labels, report = [], [], None
    run = Run(store.home, name="eval", seed=seed, listeners=(progress_view(),), fresh=fresh)
    with run, store.exclusive("mygpt eval"), run.step("eval"):
        for model in models:
            found += measured(store, run, model, tasks, config, share_documents=share_documents)
            labels += [model] * len(tasks)
        run.name = "eval"
        if len(set(labels)) > 1:
            report = compare_models(CompareConfig(labels=tuple(labels)), predictions=tuple(found), run=run)
    scores = []
    for joined in join(found, labels):
        for own in joined.models:
            interval = score(joined, own.label, joined.primary, Resampling()).interval
            limits = {"estimate": interval.estimate, "low": interval.low, "high": interval.high}
            place = {"model": own.label, "task": joined.task, "metric": joined.primary, "items": len(own.rows)}
            place["reliable"] = interval_is_reliable(joined.num_clusters)
            scores.append({**place, **limits, "predictions": own.predictions.id})
    lines = [
        f"{s['model']}  {s['task']}  {s['metric']} {s['estimate']:.3f} ({s['low']:.3f} to {s['high']:.3f}), {s['items']} items"
        + ("" if s["reliable"] else ", interval unreliable")
        for s in scores
    ]
    if report is not None:
        lines += [report.figures["headline"], *report.figures["sentences"], f"Report  {report.page}"]
    show_result({"scores": scores, "report": report.id if report else None}, as_json=json, picture=lambda: "\n".join(lines))


def compare(
    references: Annotated[
        list[str],
        typer.Argument(metavar="A B ...", help="Predictions, or with --task models and addresses, two or more; the baseline first."),
    ],
    task: Annotated[list[str] | None, typer.Option(help="Measure the models on this task first. May be repeated.")] = None,
    contamination: Annotated[
        list[str] | None, typer.Option(help="Of a task (`mygpt evaluate contamination`): clean and dirty items apart. May be repeated.")
    ] = None,
    home: Home = None,
    name: Name = None,
    seed: Seed = 0,
    set_: Settings = None,
    share_documents: Annotated[bool, typer.Option("--share-documents", help="Let items go to a model that is not this machine.")] = False,
    offline: Offline = False,
    fresh: Fresh = False,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Any number of models on the same items: paired differences, corrected over tasks, on one page.

    Example: mygpt evaluate compare base tuned served=http://127.0.0.1:8080/v1 --task t0_ag_news
    """
    from mygpt.artifacts.recipe import safe_name
    from mygpt.artifacts.report import Predictions
    from mygpt.artifacts.store import Store
    from mygpt.artifacts.task import Task
    from mygpt.core.config import parse_settings, resolve
    from mygpt.core.run import Run
    from mygpt.evaluate.compare_models import CompareConfig, compare_models
    from mygpt.evaluate.harness import RunTaskConfig

    store = Store(home_of(home, offline=offline))
    tasks = [Task.open(store, one) for one in task or ()]
    settings = parse_settings(set_ or [])
    measuring = resolve(RunTaskConfig, {k: settings.pop(k) for k in list(settings) if tasks and k in RunTaskConfig.model_fields})
    there = {word: known_predictions(store, word, tasks) for word in references}
    models = [word.rpartition("=")[2] for word, known in there.items() if not known]
    checked = tuple(Predictions.open(store, word) for word in contamination or ())
    require_sharing_of(tasks, models, share_documents=share_documents)
    if dry_run:
        known = [one for known in there.values() for one in known]
        config = resolve(CompareConfig, {**settings, "labels": labels_of(known)})
        given = {"predictions": [p.id for _, p in known], "contamination": [p.id for p in checked], "labels": list(config.labels)}
        shown = {**given, "config": config.model_dump(mode="json")}
        show_result({**shown, **({"measured": models, "tasks": [t.id for t in tasks]} if models else {})}, as_json=True)
        return
    run = Run(store.home, name="compare", seed=seed, listeners=(progress_view(),), fresh=fresh)
    with run, store.exclusive("mygpt evaluate compare"), run.step("compare"):
        found = []
        for word, known in there.items():
            label, _, model = word.rpartition("=")
            own = known or [(label or model, p) for p in measured(store, run, model, tasks, measuring, share_documents=share_documents)]
            found += own
        labels = labels_of(found)
        config = resolve(CompareConfig, {**settings, "labels": labels})
        run.name = name or safe_name("-".join(dict.fromkeys(labels)))
        compared = tuple(p for _, p in found)
        made = compare_models(config, predictions=compared, contamination=checked or None, run=run)
    figures = made.figures
    show_result(
        {"id": made.id, "page": str(made.page), **figures},
        as_json=json,
        picture=lambda: "\n".join([figures["headline"], *figures["sentences"], f"Report  {made.page}", f"Lineage mygpt why {made.id}"]),
    )


def gate(
    policy: Annotated[Path, typer.Option(help="The rules, as YAML; examples/policy.yaml is one.")],
    candidate: Annotated[list[str] | None, typer.Option(help="Predictions of the model that is to ship. May be repeated.")] = None,
    baseline: Annotated[list[str] | None, typer.Option(help="Predictions of the model it is held against. May be repeated.")] = None,
    report: Annotated[str | None, typer.Option(help="A report of `mygpt up`, for forgetting.")] = None,
    home: Home = None,
    name: Name = None,
    seed: Seed = 0,
    fresh: Fresh = False,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Ship, do not ship, or need n more items. Exit code 0 for ship, 3 otherwise.

    Example: mygpt evaluate gate --policy policy.yaml --candidate tuned --baseline base
    """
    from mygpt.artifacts.report import Report
    from mygpt.artifacts.store import Store
    from mygpt.core.run import Run
    from mygpt.evaluate.gate import SHIP, GateConfig
    from mygpt.evaluate.gate import gate as decide
    from mygpt.evaluate.policy import load_policy

    rules = load_policy(policy)
    store = Store(home_of(home))
    wanted = candidate or ([rules.candidate] if rules.candidate else [])
    if not wanted:
        raise UsageError("There is no candidate.", fix="Give `--candidate NAME`, or write `candidate: NAME` into the policy.")
    against = baseline or ([rules.baseline] if rules.baseline else [])
    candidates, baselines = ([p for w in words for _, p in predictions_meant(store, w)] for words in (wanted, against))
    named = report or rules.report
    before_after = Report.open(store, named) if named else None
    inputs = {"candidate": [p.id for p in candidates], "baseline": [p.id for p in baselines]}
    if dry_run:
        show_result({"policy": rules.model_dump(mode="json"), **inputs, "report": before_after.id if before_after else None}, as_json=True)
        return
    run = Run(store.home, name=name or f"gate-{candidates[0].name}", seed=seed, listeners=(progress_view(),), fresh=fresh)
    with run, store.exclusive("mygpt evaluate gate"), run.step("gate"):
        made = decide(
            GateConfig(),
            policy=policy,
            candidate=tuple(candidates),
            baseline=tuple(baselines) or None,
            report=before_after,
            run=run,
        )
    figures = made.figures
    lines = [figures["headline"], *(f"  {r['outcome']:<9} {r['task']}: {r['reason']}" for r in figures["rules"]), f"Report  {made.page}"]
    show_result({"id": made.id, "page": str(made.page), **figures}, as_json=json, picture=lambda: "\n".join(lines))
    if figures["outcome"] != SHIP:
        raise typer.Exit(_NOT_SHIPPED)


def card(
    reference: Annotated[str, typer.Argument(help="A model, adapter, deployment, dataset or corpus.")],
    intended_use: Annotated[list[str] | None, typer.Option(help="What it is for, in your words. May be repeated.")] = None,
    limit: Annotated[list[str] | None, typer.Option(help="What it is not for, in your words. May be repeated.")] = None,
    to: Annotated[Path | None, typer.Option(help="Write it to this file.")] = None,
    home: Home = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """The model card or data card, in Markdown, from what was recorded.

    Example: mygpt evaluate card adapter/handbook --to MODEL_CARD.md
    """
    from mygpt.artifacts.store import Store
    from mygpt.evaluate.cards import DATA_KINDS, MODEL_KINDS, card_of

    store = Store(home_of(home))
    named = [m for kind in (*MODEL_KINDS, *DATA_KINDS) if (m := store.lookup(reference, kind=kind)) is not None]
    if len(named) > 1:
        listed = ", ".join(f"`{m.kind}/{m.name}`" for m in named)
        raise UsageError(f"`{reference}` is the name of several: {listed}.", fix="Say which.")
    manifest = named[0] if named else store.find(reference)
    text = card_of(store, manifest, intended_uses=intended_use or (), limits=limit or ()).markdown
    if to is not None and not dry_run:
        to.write_text(text, encoding="utf-8")
    told = f"Wrote {to}" if to is not None and not dry_run else text
    show_result({"id": manifest.id, "card": text, "file": str(to) if to else None}, as_json=json, picture=lambda: told)


# -- measuring ---------------------------------------------------------------------------------------------------------------


def measured(store: Any, run: Any, model: str, tasks: Sequence[Any], config: Any, *, share_documents: bool) -> list[Any]:
    """Predictions of one model, MODEL[+ADAPTER] or an address, on each task. They carry its name afterwards: `gate --candidate NAME`."""
    from mygpt.artifacts.recipe import safe_name
    from mygpt.cli.recipe_call import open_inputs, recipe_inputs
    from mygpt.evaluate.harness import run_task

    run.name = safe_name(model)
    tools: dict[str, Any] = {}
    found = []
    for task in tasks:
        tool = "completer" if task.form == "generate" else "scorer"
        if tool not in tools:
            tools |= open_inputs(store, run, recipe_inputs(run_task), {tool: [model]}, share_documents=share_documents)
        found.append(run_task(config, task=task, **{tool: tools[tool]}, run=run))
    return found


def require_sharing_of(tasks: Sequence[Any], models: Sequence[str], *, share_documents: bool) -> None:
    """Before anything is computed."""
    from mygpt.core.outbound import require_sharing

    for model in models:
        if model.startswith(("http://", "https://")):
            require_sharing(model, num_passages=sum(len(t.items) for t in tasks), allowed=share_documents)


# -- which predictions a word means ------------------------------------------------------------------------------------------


def predictions_meant(store: Any, word: str) -> list[tuple[str | None, Any]]:
    """(label, predictions); the label is None where the model is to be called by its identity."""
    from mygpt.artifacts.report import Predictions
    from mygpt.evaluate.same_items import is_of_a_task

    label, _, reference = word.rpartition("=")
    own = [m for m in store.manifests() if m.kind == Predictions.kind and m.name == reference and is_of_a_task(m.facts)]
    if not own:
        return [(label or None, Predictions.open(store, reference))]
    newest = {(m.facts["task"], _same_model(m.facts.get("model"))): m for m in own}  # oldest first: the last stays
    if len({model for _, model in newest}) > 1:
        listed = ", ".join(m.id for m in newest.values())
        raise UsageError(f"`{reference}` names predictions of several models: {listed}.", fix="Give each by its id, as LABEL=ID.")
    return [(label or reference, Predictions(m, store)) for m in newest.values()]


def _same_model(identity: Any) -> str:
    """Alike for the same weights, whichever tool answered with them: a scorer, a completer, or the lineage that was searched."""
    if isinstance(identity, Mapping) and identity.get("model"):
        identity = {"model": identity["model"], "adapter": identity.get("adapter")}
    return json_text.dumps(identity, sort_keys=True)


def known_predictions(store: Any, word: str, tasks: Sequence[Any]) -> list[tuple[str | None, Any]]:
    """Predictions that a word means; [] for a model that is to be measured, which takes `tasks`: no predictions, or not on all of them."""
    from mygpt.artifacts.report import Predictions

    if not tasks:
        return predictions_meant(store, word)
    reference = word.rpartition("=")[2]
    if store.lookup(reference, kind=Predictions.kind) is None:
        return []
    found = predictions_meant(store, word)
    on_all = {task.settings.name for task in tasks} <= {p.manifest.facts.get("task") for _, p in found}
    return found if on_all or reference not in {p.name for _, p in found} else []  # an id or a tag is meant, whatever it covers


def labels_of(found: Sequence[tuple[str | None, Any]]) -> list[str]:
    from mygpt.evaluate.same_items import model_labels

    by_identity = model_labels([p for _, p in found])
    return [label or called for (label, _), called in zip(found, by_identity, strict=True)]
