"""Model card and data card, in Markdown, from what the store recorded: manifests, lineage, reports.

Nothing is invented: what no manifest or report holds is "not recorded". Intended uses are the owner's to say. Figures are those of the
reports in the store that rest on the model, with their intervals; known failures are its worst items there, the tasks on which it is worse
than its baseline, and what it forgot.

Source: Mitchell et al. 2019, "Model cards for model reporting", arXiv:1810.03993, section 4; Gebru et al. 2021, "Datasheets for datasets",
arXiv:1803.09010. We differ: sections that only a person can answer are left to that person.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mygpt.artifacts.deployment import Deployment
from mygpt.artifacts.kinds import noun
from mygpt.artifacts.lineage import why
from mygpt.artifacts.manifest import Manifest
from mygpt.artifacts.report import Report
from mygpt.artifacts.store import Store
from mygpt.core.errors import UsageError
from mygpt.evaluate.task_figures import PLUMBING, UNRELIABLE
from mygpt.metrics.bootstrap import interval_is_reliable
from mygpt.views.page import markdown

MODEL_KINDS, DATA_KINDS = ("model", "adapter", "deployment"), ("dataset", "corpus")
MOST_FAILURES = 8


@dataclass(frozen=True)
class Card:
    template: str
    values: Mapping[str, Any]

    @property
    def markdown(self) -> str:
        return markdown(self.template, **self.values)


def card_of(store: Store, manifest: Manifest, *, intended_uses: Sequence[str] = (), limits: Sequence[str] = ()) -> Card:
    """Of a model, an adapter or a deployment; of a dataset or a corpus. `intended_uses` and `limits` are the owner's words."""
    common = {
        "m": manifest,
        "licence": manifest.provenance.get("licence"),
        "provenance": {key: value for key, value in manifest.provenance.items() if value is not None},
        "intended_uses": list(intended_uses),
        "own_limits": list(limits),
        "tree": list(why(store, manifest).lines()),
    }
    family = ancestors(store, manifest)
    if manifest.kind in MODEL_KINDS:
        return Card("model_card.md.jinja", {**common, **_model_values(store, manifest, family)})
    if manifest.kind in DATA_KINDS:
        return Card("data_card.md.jinja", {**common, **_data_values(manifest, family)})
    known = ", ".join((*MODEL_KINDS, *DATA_KINDS))
    raise UsageError(f"There is no card for a {manifest.kind} ({manifest.id}).", fix=f"Name one of: {known}.")


def ancestors(store: Store, manifest: Manifest) -> dict[str, Manifest]:
    """By digest: the artefact itself and all that it was made from, as far as this home has them."""
    found, waiting = {manifest.digest: manifest}, [manifest]
    while waiting:
        for digest in waiting.pop().parents:
            parent = store.get(digest)
            if parent is not None and digest not in found:
                found[digest] = parent
                waiting.append(parent)
    return found


def reports_about(store: Store, digest: str) -> list[Report]:
    """Those that rest on it, newest first."""
    rest = [m for m in store.manifests() if m.kind == Report.kind and digest in ancestors(store, m)]
    return [Report(m, store) for m in sorted(rest, key=lambda m: m.created, reverse=True)]


# -- a model ----------------------------------------------------------------------------------------------------------------


def _model_values(store: Store, manifest: Manifest, family: Mapping[str, Manifest]) -> dict[str, Any]:
    subject = _answering(store, manifest)
    base = store.get(str(subject.facts.get("base", ""))) or next(
        (m for d, m in ancestors(store, subject).items() if m.kind == "model" and d != subject.digest), None
    )
    reports = reports_about(store, subject.digest)
    trained_on = [m for m in ancestors(store, subject).values() if m.kind in DATA_KINDS]
    figures = [row for report in reports for row in _figures(report, subject)]
    return {
        "subject": subject,
        "base": base,
        "training": [_data_row(m) for m in trained_on],
        "figures": figures,
        "verdicts": [row for report in reports for row in _verdicts(store, report, subject)],
        "failures": [row for report in reports for row in _failures(report, subject)][:MOST_FAILURES],
        "worse_on": [row for row in figures if row["verdict"] == "worse"],
        "forgetting": [row for report in reports for row in _forgetting(report, subject)],
        "unreliable": sorted({row["task"] for row in figures if row["verdict"] == UNRELIABLE}),
        "no_headroom": sorted({row["task"] for row in figures if row["verdict"] == PLUMBING}),
        "languages": _languages(trained_on),
        "family_licences": {m.id: m.provenance.get("licence") for m in family.values() if m.kind in ("model", *DATA_KINDS)},
    }


def _answering(store: Store, manifest: Manifest) -> Manifest:
    """What a deployment answers with: its adapter, else its model."""
    if manifest.kind != Deployment.kind:
        return manifest
    deployment = noun(manifest, store)
    assert isinstance(deployment, Deployment)
    return (deployment.adapter or deployment.model).manifest


def _is_of(identity: Any, subject: Manifest) -> bool:
    """Whether a tool's identity is that of the subject: an adapter under its own digest, a model only without one."""
    if not isinstance(identity, Mapping):
        return identity == subject.digest
    if identity.get("model") or identity.get("adapter"):
        return bool((identity.get("adapter") or identity.get("model")) == subject.digest)
    return any(_is_of(value, subject) for value in identity.values() if isinstance(value, Mapping))


def _own_label(figures: Mapping[str, Any], subject: Manifest) -> str | None:
    return next((model["label"] for model in figures.get("models", ()) if _is_of(model.get("identity"), subject)), None)


def _own_results(report: Report, subject: Manifest) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(task, this model's figures on it) of a comparison."""
    if report.figures.get("kind") == "comparison":
        label = _own_label(report.figures, subject)
        yield from ((task, model) for task in report.figures["tasks"] for model in task["models"] if model["label"] == label)


def _is_tuned_in(report: Report, subject: Manifest) -> bool:
    """Whether the subject is what a before/after report calls tuned."""
    return subject.digest in [one.digest for one in report.manifest.inputs.get("adapter", ())]


def _figures(report: Report, subject: Manifest) -> Iterator[dict[str, Any]]:
    for task, own in _own_results(report, subject):
        found = own["difference"]
        yield {
            "report": report.id,
            "task": task["task"],
            "version": task["version"],
            "metric": task["metric"],
            "items": task["items"],
            "score": own["score"],
            "against": report.figures["baseline"] if found else None,
            "difference": found,
            "verdict": found["verdict"] if found else None,
            "predictions": own["predictions"],
            "contamination": own.get("contamination"),  # reports of older versions have none
        }
    if "sets" in report.figures:  # of `mygpt up`
        arms = ("tuned", "tuned_retrieval") if _is_tuned_in(report, subject) else ("base_zero_shot", "base_retrieval")
        for name, shown in report.figures["sets"].items():
            for arm in (a for a in shown["arms"] if a["arm"] in arms):
                low, high = arm["f1_interval"]
                yield {
                    "report": report.id,
                    "task": f"{name}, {arm['label']}",
                    "version": None,
                    "metric": "token F1",
                    "items": shown["items"],
                    "score": {"estimate": arm["f1"], "low": low, "high": high},
                    "against": "base" if arm["over_base"] else None,
                    "difference": arm["over_base"],
                    "verdict": None if interval_is_reliable(shown["passages"]) else UNRELIABLE,
                    "predictions": None,
                    "contamination": None,
                }


def _verdicts(store: Store, report: Report, subject: Manifest) -> Iterator[dict[str, Any]]:
    figures = report.figures
    if figures.get("kind") == "gate":
        candidates = [store.get(one.digest) for one in report.manifest.inputs.get("candidate", ())]
        if any(m is not None and _is_of(m.facts.get("model"), subject) for m in candidates):
            yield {"report": report.id, "said": figures["headline"], "reasons": [f"{r['task']}: {r['reason']}" for r in figures["rules"]]}
    elif "verdict" in figures and _is_tuned_in(report, subject):
        yield {"report": report.id, "said": figures["verdict"]["headline"], "reasons": figures["verdict"]["sentences"]}


def _failures(report: Report, subject: Manifest) -> Iterator[dict[str, Any]]:
    """Its worst items, as the reports show them."""
    for task, own in _own_results(report, subject):
        for item in own["worst"]:
            yield {
                "where": f"{task['task']}, item {item['item_id']}",
                "question": item["question"],
                "reference": item["reference"],
                "answer": item["after"],
                "score": f"{task['metric']} {item['score_after']:.2f}, {item['score_before']:.2f} before",
            }
    if "samples" in report.figures and _is_tuned_in(report, subject):
        for item in report.figures["samples"]["worst"]:
            yield {
                "where": f"knowledge, in {report.id}",
                "question": item["question"],
                "reference": item["reference"],
                "answer": item["tuned"],
                "score": f"token F1 {item['f1_tuned']:.2f}, {item['f1_base']:.2f} before",
            }


def _forgetting(report: Report, subject: Manifest) -> Iterator[dict[str, Any]]:
    found = report.figures.get("forgetting")
    if found and _is_tuned_in(report, subject):
        yield {"report": report.id, **found}


# -- data -------------------------------------------------------------------------------------------------------------------


def _data_values(manifest: Manifest, family: Mapping[str, Manifest]) -> dict[str, Any]:
    data = [m for m in family.values() if m.kind in DATA_KINDS]
    return {
        "rows": [_data_row(m) for m in data],
        "languages": _languages(data),
        "dropped": manifest.facts.get("dropped") or {},
        "makers": manifest.tools,
        "family_licences": {m.id: m.provenance.get("licence") for m in family.values() if m.kind in ("model", *DATA_KINDS)},
    }


def _data_row(manifest: Manifest) -> dict[str, Any]:
    facts = manifest.facts
    return {
        "id": manifest.id,
        "splits": facts.get("rows") if isinstance(facts.get("rows"), Mapping) else None,
        "schema": facts.get("schema"),
        "documents": facts.get("documents"),
        "passages": facts.get("passages"),
        "characters": facts.get("characters"),
        "skipped": facts.get("skipped"),
        "licence": manifest.provenance.get("licence"),
        "sources": manifest.provenance.get("sources") or [i.path for group in manifest.inputs.values() for i in group if i.path],
    }


def _languages(manifests: Sequence[Manifest]) -> dict[str, int]:
    """Documents by language."""
    counted: dict[str, int] = {}
    for manifest in manifests:
        for language, count in (manifest.facts.get("languages") or {}).items():
            counted[language] = counted.get(language, 0) + count
    return counted
