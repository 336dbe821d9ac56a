"""New documents, same model: read them, index them, and answer from them."""

from dataclasses import dataclass
from pathlib import Path

from mygpt.artifacts.deployment import Deployment
from mygpt.artifacts.store import Store
from mygpt.core.run import Run
from mygpt.data.ingest import IngestConfig, ingest, require_readable
from mygpt.data.readers.ocr import find_tesseract
from mygpt.lm.sources import obtain
from mygpt.pipelines.deployment import DeployConfig, deploy, embedder_for, recorded_corpus, recorded_embedder, training_seconds
from mygpt.pipelines.sources import Sources
from mygpt.rag.index import IndexConfig, build_index


@dataclass(frozen=True)
class Refreshed:
    deployment: Deployment
    retune_seconds: float | None  # what training anew on the documents as they are now would cost; None when it would change nothing


def refresh(sources: Sources, *, added: Path, run: Run) -> Refreshed:
    """A Deployment with the model of the last one, and an index of the sources as they are now.

    Raises UsageError when `added`, one of the sources or a file in one, cannot be read; all stays as it was then.
    """
    store = Store(run.home)
    before = Deployment.open(store, f"deployment/{sources.name}")
    index_before = before.index
    with run.step("models"):
        embedder = embedder_for(recorded_embedder(before) or obtain("minilm", run=run), run.home)
    with run.step("read"):
        settings = IngestConfig.model_validate(recorded_corpus(index_before).manifest.config if index_before else {})
        require_readable(added, settings, ocr=find_tesseract(), run=run)
        corpus = ingest(settings, sources=sources.paths, ocr=find_tesseract(), run=run)
        sources.save(run.home)
    with run.step("index"):
        config = IndexConfig.model_validate(index_before.manifest.config if index_before else {})
        index = build_index(config, corpus=corpus, embedder=embedder, run=run)
    with run.step("deploy"):
        deployment = deploy(
            DeployConfig.model_validate(before.manifest.config),
            model=before.model,
            adapter=before.adapter,
            index=index,
            report=before.report,
            trained_on=before.trained_on,
            run=run,
        )
    learnt = before.trained_on
    changed = learnt is not None and learnt.digest != corpus.digest
    return Refreshed(deployment, training_seconds(before.dataset, before.tuned) if changed else None)
