"""Deployment: what is chatted with and served: a model, perhaps an adapter, and the index it answers from.

Payload  deployment.json: the digests of model, adapter (or null), index and report
"""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from mygpt.artifacts.artifact import Artifact
from mygpt.artifacts.corpus import Corpus
from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.report import Report
from mygpt.artifacts.search_index import SearchIndex


@dataclass(frozen=True)
class Deployment(Artifact):
    kind: ClassVar[str] = "deployment"

    @cached_property
    def _digests(self) -> dict[str, str | None]:
        digests: dict[str, str | None] = json.loads((self.payload / "deployment.json").read_text(encoding="utf-8"))
        return digests

    @property
    def model(self) -> Model:
        return Model.of(self.store, self._digests["model"] or "")

    @property
    def adapter(self) -> Adapter | None:
        digest = self._digests["adapter"]
        return Adapter.of(self.store, digest) if digest else None

    @property
    def index(self) -> SearchIndex | None:
        digest = self._digests["index"]
        return SearchIndex.of(self.store, digest) if digest else None

    @property
    def report(self) -> Report | None:
        digest = self._digests["report"]
        return Report.of(self.store, digest) if digest else None

    @property
    def dataset(self) -> Dataset | None:
        """What the model was trained on, through the report."""
        report = self.report
        recorded = report.manifest.inputs.get("dataset") if report else None
        return Dataset.of(self.store, recorded[0].digest) if recorded else None

    @property
    def tuned(self) -> Adapter | Model | None:
        """What was trained, whether it is served or not, through the report; None when nothing was trained or it is gone."""
        report = self.report
        recorded = report.manifest.inputs.get("adapter") if report else None
        manifest = self.store.get(recorded[0].digest) if recorded else None
        if manifest is None:
            return None
        return Adapter(manifest, self.store) if manifest.kind == Adapter.kind else Model(manifest, self.store)

    @property
    def trained_on(self) -> Corpus | None:
        """The documents that the tuned model learnt from; None when nothing was trained or they are gone."""
        recorded = self.manifest.inputs.get("trained_on")
        manifest = self.store.get(recorded[0].digest) if recorded else None
        return Corpus(manifest, self.store) if manifest else None
