"""What a race runs on: what `up` made under a name or of a folder, or a dataset; with the model, and the index where there is one."""

from dataclasses import dataclass
from pathlib import Path

from mygpt.artifacts.corpus import Corpus
from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.deployment import Deployment
from mygpt.artifacts.model import Model
from mygpt.artifacts.search_index import SearchIndex
from mygpt.artifacts.store import Store
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.lm.sources import obtain
from mygpt.pipelines.deployment import embedder_for, indexed_with
from mygpt.pipelines.newest import newest_deployment
from mygpt.pipelines.race import Entered
from mygpt.pipelines.sources import sources_of_folder

_MODEL, _EMBEDDER = "smollm2-135m", "minilm"


@dataclass(frozen=True)
class Entry:
    """Found in a home; models may still have to be fetched."""

    name: str
    dataset: Dataset
    model: Model | str
    index: SearchIndex | None
    corpus: Corpus | None

    def opened(self, run: Run) -> Entered:
        model = obtain(self.model, run=run) if isinstance(self.model, str) else self.model
        embedder = None
        if self.index is not None:
            embedder = embedder_for(indexed_with(self.index) or obtain(_EMBEDDER, run=run), run.home)
        return Entered(self.dataset, model, self.index, embedder, self.corpus)


def entry_of(store: Store, *, name: str | None, dataset: str | None, model: str | None, index: str | None) -> Entry:
    """Raises UsageError where there is nothing of that name, or no questions were ever made."""
    named = SearchIndex.open(store, index) if index else None
    if dataset is not None:
        found = Dataset.open(store, dataset)
        corpus = corpus_of(found)
        return Entry(found.name, found, model or _MODEL, named or index_of(corpus), corpus)
    deployment = newest_deployment(store.home, _name_of(store, name))
    questions = deployment.dataset
    if questions is None:
        raise UsageError(
            f"{deployment.id} has no questions: nothing was trained or measured when it was made.",
            fix="Run `mygpt up DIR` on more documents, or name a dataset with `--dataset`.",
        )
    return Entry(
        deployment.name, questions, model or base_of(deployment), named or deployment.index, deployment.trained_on or corpus_of(questions)
    )


def at_hand(store: Store, entry: Entry) -> Model | None:
    """The model, where it does not have to be fetched first."""
    if isinstance(entry.model, Model):
        return entry.model
    manifest = store.lookup(entry.model, kind=Model.kind)
    return Model(manifest, store) if manifest else None


def base_of(deployment: Deployment) -> Model:
    """What the deployment's model was tuned from; itself where its own weights are the base's."""
    facts = deployment.model.manifest.facts
    return Model.of(deployment.store, facts["base"]) if "method" in facts else deployment.model


def corpus_of(dataset: Dataset) -> Corpus | None:
    """The documents that the questions were made of, when they are at hand."""
    recorded = dataset.manifest.inputs.get("corpus")
    manifest = dataset.store.get(recorded[0].digest) if recorded else None
    return Corpus(manifest, dataset.store) if manifest else None


def index_of(corpus: Corpus | None) -> SearchIndex | None:
    """The newest over these documents."""
    if corpus is None:
        return None
    found = [m for m in corpus.store.manifests() if m.kind == SearchIndex.kind and m.facts.get("corpus") == corpus.digest]
    return SearchIndex(found[-1], corpus.store) if found else None


def _name_of(store: Store, name: str | None) -> str | None:
    """Of a folder, what `up` called it."""
    if name is None or not Path(name).is_dir() or store.lookup(name, kind=Deployment.kind) is not None:
        return name
    called = sources_of_folder(store.home, Path(name), None).name
    if store.lookup(called, kind=Deployment.kind) is None:
        raise UsageError(f"Nothing was made of {name} in {store.home} yet.", fix=f"Begin with `mygpt up {name}`.")
    return called
