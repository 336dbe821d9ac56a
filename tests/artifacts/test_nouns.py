"""Each noun comes back from the disk as it went in."""

import hashlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mygpt.artifacts.corpus import Corpus, Skipped
from mygpt.artifacts.dataset import Dataset, Message
from mygpt.artifacts.deployment import Deployment
from mygpt.artifacts.feedback import Feedback
from mygpt.artifacts.kinds import KINDS, noun
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.report import Predictions, Report, write_predictions
from mygpt.artifacts.search_index import SearchIndex
from mygpt.artifacts.store import Store
from mygpt.core.errors import UsageError
from mygpt.core.run import Run


def test_corpus(family: dict[str, Any], store: Store) -> None:
    corpus = Corpus.open(store, "test")
    first, second = corpus.documents.values()
    assert (first.path, first.text, first.title) == ("one.txt", "Hello, says the first.", "Notes")
    assert first.places == ((0, "top"), (4, "below"))
    assert first.sha256 == hashlib.sha256(b"Hello, says the first.").hexdigest()
    assert [p.text for p in corpus.passages] == [first.text, second.text]
    span = corpus.passages[1].span
    assert corpus.documents[span.document_id].text[span.start : span.end] == corpus.passages[1].text
    assert corpus.skipped == [Skipped("picture.png", "no text", "an image", "Describe it in a text file.")]
    assert corpus.manifest.facts == {"documents": 2, "passages": 2, "skipped": 1, "characters": 22 + 26}


def test_dataset(family: dict[str, Any], store: Store) -> None:
    dataset = Dataset.open(store, "test")
    assert dataset.splits == ["knowledge", "train"]
    row = dataset.split("train")[0]
    assert row.messages == (Message("user", "What does it say?"), Message("assistant", "It says hello."))
    assert (row.question, row.answer, row.facts) == ("What does it say?", "It says hello.", {"form": "what"})
    assert row.prompt == row.messages[:1]
    assert row.sources == (family["corpus"].passages[0].span,)
    assert [(d.reason, d.detail, d.row) for d in dataset.dropped] == [("duplicate", "same as the first", row)]
    assert dataset.split("never made") == []
    assert dataset.manifest.facts == {"schema": "sft", "rows": {"train": 2, "knowledge": 1}, "dropped": {"duplicate": 1}}
    assert dataset.manifest.cost["tokens"] == 6  # two answers of three words


def test_model_and_adapter(family: dict[str, Any], store: Store) -> None:
    model, adapter = Model.open(store, "tiny"), Adapter.open(store, "test")
    assert (model.head, model.name) == ("lm", "tiny")
    assert (model.payload / "model.safetensors").read_bytes() == b"\x00\x01\x02"
    assert adapter.base.digest == model.digest


def test_predictions_keep_every_column(family: dict[str, Any], store: Store, tmp_path: Path) -> None:
    assert Predictions.open(store, "test").rows == [{"item_id": "0", "arm": "test", "answer": "yes", "f1": 0.5}]
    write_predictions(tmp_path, [{"item_id": "a"}, {"item_id": "b", "f1": 0.25}])
    assert sorted(p.name for p in tmp_path.glob("*.parquet")) == ["predictions.parquet"]
    import pyarrow.parquet as pq

    assert pq.read_table(tmp_path / "predictions.parquet").to_pylist() == [{"item_id": "a", "f1": None}, {"item_id": "b", "f1": 0.25}]


def test_report(family: dict[str, Any], store: Store) -> None:
    report = Report.open(store, "test")
    assert report.figures == {"f1_tuned": 0.33, "verdict": "tuned", "sets": {"knowledge": {"n": 1}}}  # 0.25 + 8 * 100 / 10000
    assert report.page.read_text() == "<p>report</p>"


def test_search_index(toys: ModuleType, family: dict[str, Any], run: Run, store: Store) -> None:
    toys.index(toys.IndexConfig(), corpus=family["corpus"], run=run)
    index = SearchIndex.open(store, "test")
    assert index.titles == [("one.txt", "Notes"), ("two.txt", "Notes")]
    document = next(iter(family["corpus"].documents.values()))
    assert index.document(document.id) == document
    assert [index.place(document.id, offset) for offset in (0, 3, 4, 20)] == ["top", "top", "below", "below"]
    assert np.array_equal(index.vectors, np.eye(2))


def test_deployment_leads_to_its_parts(family: dict[str, Any], store: Store) -> None:
    deployment = Deployment.open(store, "test")
    assert deployment.model.digest == family["model"].digest
    assert deployment.adapter is not None and deployment.adapter.digest == family["adapter"].digest
    assert deployment.report is not None and deployment.report.digest == family["report"].digest
    assert deployment.index is None


def test_feedback_with_a_line_separator_in_a_comment(family: dict[str, Any], store: Store) -> None:
    rows = Feedback.open(store, "test").rows
    assert rows == [{"rating": 1, "comment": "good"}, {"rating": -1, "comment": "first line\u2028second line"}]


def test_every_kind_has_its_noun(family: dict[str, Any], store: Store) -> None:
    assert all(KINDS[kind].kind == kind for kind in KINDS)
    for kind, artifact in family.items():
        assert type(noun(artifact.manifest, store)) is KINDS[kind] is type(artifact)


def test_manifest_says_how_it_came_to_be(family: dict[str, Any], documents: Path) -> None:
    manifest = family["dataset"].manifest
    assert manifest.recipe == "mygpt.toys:pairs"
    assert manifest.config == {"ask": "What does it say?"}
    assert manifest.tools == {"completer": {"engine": "scripted", "model": family["model"].digest, "sampling": {"temperature": 0.0}}}
    assert manifest.parents == sorted([family["corpus"].digest, family["model"].digest])
    (source,) = family["corpus"].manifest.inputs["source"]
    assert (source.kind, source.path) == ("source", str(documents))
    stored = json.loads((family["dataset"].payload.parent / "manifest.json").read_text())
    content = (family["dataset"].payload / "train.parquet").read_bytes()
    assert stored["files"]["train.parquet"] == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert stored["hardware"]["cores"] >= 1 and stored["packages"]["pyarrow"] and stored["code"]["mygpt"]


def test_of_wants_the_right_kind(family: dict[str, Any], store: Store) -> None:
    with pytest.raises(UsageError, match=r"The adapter .* is not in"):
        Adapter.of(store, family["model"].digest)
