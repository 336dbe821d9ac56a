"""New documents, same model: read them, index them, and answer from them."""

from mygpt.artifacts.deployment import Deployment
from mygpt.artifacts.store import Store
from mygpt.core.run import Run
from mygpt.data.ingest import IngestConfig, ingest
from mygpt.data.readers.ocr import find_tesseract
from mygpt.lm.sources import obtain
from mygpt.pipelines.deployment import DeployConfig, deploy, embedder_for, recorded_corpus, recorded_embedder
from mygpt.pipelines.sources import Sources
from mygpt.rag.index import IndexConfig, build_index


def refresh(sources: Sources, *, run: Run) -> Deployment:
    """A Deployment with the model of the last one, and an index of the sources as they are now."""
    store = Store(run.home)
    before = Deployment.open(store, f"deployment/{sources.name}")
    index_before = before.index
    with run.step("models"):
        embedder = embedder_for(recorded_embedder(before) or obtain("minilm", run=run), run.home)
    with run.step("read"):
        settings = recorded_corpus(index_before).manifest.config if index_before else {}
        corpus = ingest(IngestConfig.model_validate(settings), sources=sources.paths, ocr=find_tesseract(), run=run)
        last = sources.paths[-1]
        missed = [s for s in corpus.skipped if s.path in (last.name, str(last))]
        for skipped in missed:
            run.warn(f"{skipped.path} was not read: {skipped.detail} {skipped.fix}")
        sources.save(run.home)
    with run.step("index"):
        settings = index_before.manifest.config if index_before else {}
        index = build_index(IndexConfig.model_validate(settings), corpus=corpus, embedder=embedder, run=run)
    with run.step("deploy"):
        return deploy(
            DeployConfig.model_validate(before.manifest.config),
            model=before.model,
            adapter=before.adapter,
            index=index,
            report=before.report,
            trained_on=before.trained_on,
            run=run,
        )
