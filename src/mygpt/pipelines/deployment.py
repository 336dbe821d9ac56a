"""What was made is put to use: `deploy` writes down what is served together, `open_deployment` brings it to life."""

import json
from dataclasses import dataclass
from pathlib import Path

from mygpt.artifacts.corpus import Corpus
from mygpt.artifacts.dataset import Conversation, Dataset, Message
from mygpt.artifacts.deployment import Deployment
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Report
from mygpt.artifacts.search_index import SearchIndex
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.infer.cached import CachedEmbedder
from mygpt.infer.protocols import Embedder, Sampling, StreamingCompleter
from mygpt.infer.torch_embedder import TorchEmbedder
from mygpt.infer.torch_engine import TorchEngine
from mygpt.rag.answer import AnswerConfig, RetrievalCompleter
from mygpt.rag.search import Search, open_search


class DeployConfig(Config):
    answer: AnswerConfig = AnswerConfig()


@recipe
def deploy(
    config: DeployConfig,
    *,
    model: Model,
    adapter: Adapter | None = None,
    index: SearchIndex | None = None,
    report: Report | None = None,
    trained_on: Corpus | None = None,
    run: Run,
) -> Deployment:
    """`trained_on` is the Corpus that the tuned model learnt from; the index may be newer."""
    parts = {"model": model, "adapter": adapter, "index": index, "report": report}
    digests = {name: part.digest if part else None for name, part in parts.items()}

    def write(folder: Path) -> None:
        (folder / "deployment.json").write_text(json.dumps(digests, indent=1), encoding="utf-8")

    return publish(Deployment, run, write, facts={"tuned": adapter is not None or "method" in model.manifest.facts})


@dataclass(frozen=True)
class Opened:
    """A deployment in memory. `completer` answers from the documents when there is an index."""

    completer: StreamingCompleter
    engine: TorchEngine
    search: Search | None
    context_reserve: int = 0  # tokens that retrieved passages may take of the window, at most


def open_deployment(deployment: Deployment, *, embedder: Model | None, run: Run) -> Opened:
    engine = TorchEngine(deployment.model, adapter=deployment.adapter)
    index = deployment.index
    if index is None or embedder is None:
        return Opened(engine, engine, None)
    config = DeployConfig.model_validate(deployment.manifest.config)
    search = open_search(index, embedder_for(embedder, run.home))
    reserve = 3 * config.answer.context_words  # code and names take up to three tokens a word
    return Opened(RetrievalCompleter(engine, search, config.answer), engine, search, reserve)


def warm_up(opened: Opened) -> None:
    """Read the weights and run once, so that the first user does not wait for it."""
    conversation = Conversation((Message("user", "Hello"),))
    for _ in opened.completer.stream(conversation, Sampling(max_tokens=1)):
        pass
    for _ in opened.engine.stream(conversation, Sampling(max_tokens=1)):
        pass


def embedder_for(model: Model, home: Path) -> Embedder:
    """Vectors computed once are kept in the home."""
    return CachedEmbedder(TorchEmbedder(model), home / "cache" / "vectors.sqlite")


def training_seconds(*made: Dataset | Adapter | Model | None) -> float:
    """What the questions and the training cost: about what training anew would cost."""
    return sum(artifact.manifest.cost.get("seconds") or 0.0 for artifact in made if artifact is not None)


def recorded_embedder(deployment: Deployment) -> Model | None:
    """The Model that the deployment's index was made with, when it is at hand."""
    return indexed_with(deployment.index) if deployment.index else None


def indexed_with(index: SearchIndex) -> Model | None:
    """The Model whose vectors the index holds, when it is at hand."""
    digest = index.manifest.facts["embedder"].get("model")
    manifest = index.store.get(digest) if digest else None
    return Model(manifest, index.store) if manifest else None


def recorded_corpus(index: SearchIndex) -> Corpus:
    return Corpus.of(index.store, index.manifest.facts["corpus"])
