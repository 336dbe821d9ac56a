"""Every noun by the word that manifests use for it."""

from mygpt.artifacts.artifact import Artifact
from mygpt.artifacts.corpus import Corpus
from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.deployment import Deployment
from mygpt.artifacts.feedback import Feedback
from mygpt.artifacts.manifest import Manifest
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.ratings import Ratings
from mygpt.artifacts.report import Predictions, Report
from mygpt.artifacts.search_index import SearchIndex
from mygpt.artifacts.store import Store
from mygpt.artifacts.task import Task

KINDS: dict[str, type[Artifact]] = {
    "corpus": Corpus,
    "dataset": Dataset,
    "model": Model,
    "adapter": Adapter,
    "task": Task,
    "predictions": Predictions,
    "report": Report,
    "search_index": SearchIndex,
    "deployment": Deployment,
    "feedback": Feedback,
    "ratings": Ratings,
}


def noun(manifest: Manifest, store: Store) -> Artifact:
    """The artefact of a manifest, as its own type."""
    return KINDS[manifest.kind](manifest, store)
