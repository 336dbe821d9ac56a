"""Each noun comes back from the disk as it went in."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mygpt.artifacts.corpus import Corpus, Document, Passage, Skipped, Span, write_corpus
from mygpt.artifacts.dataset import Conversation, Dataset, Message, row_facts, write_conversations
from mygpt.artifacts.deployment import Deployment
from mygpt.artifacts.feedback import Feedback
from mygpt.artifacts.kinds import KINDS, noun
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, Report, write_predictions
from mygpt.artifacts.search_index import SearchIndex
from mygpt.artifacts.store import Store
from mygpt.core.config import Config
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
    counts = {"documents": 2, "passages": 2, "skipped": 1, "characters": 22 + 26}
    assert corpus.manifest.facts == {**counts, "languages": {"en": 2}, "characters_by_language": {"en": 22 + 26}}
    assert (corpus.num_documents, corpus.num_passages, corpus.characters_by_language) == (2, 2, {"en": 48})


class ManyConfig(Config):
    documents: int = 40


@recipe
def many(config: ManyConfig, *, run: Run) -> Corpus:
    """Document i has i % 4 passages of one line each; every third is French."""

    def read() -> Iterator[tuple[Document, list[Passage]]]:
        for i in range(config.documents):
            lines = [f"Line {k} of document {i}." for k in range(i % 4)]
            text, language = "\n".join(lines), "fr" if i % 3 == 0 else "en"
            starts = [text.index(line) for line in lines]
            spans = [Span(f"d{i:02}", start, start + len(line), line) for start, line in zip(starts, lines, strict=True)]
            document = Document(f"d{i:02}", f"{i}.txt", text, f"Title {i}", "text/plain", "", len(text), language)
            yield document, [Passage(f"{s.document_id}-{s.start}", s, text[s.start : s.end], document.title, document.path) for s in spans]
        skipped.append(Skipped("z.bin", "binary", "", ""))  # found late
        skipped.append(Skipped("a.bin", "binary", "", ""))

    skipped: list[Skipped] = []
    return publish(Corpus, run, lambda folder: write_corpus(folder, read(), skipped))


def test_a_corpus_is_written_and_read_in_parts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = many(ManyConfig(), run=run)
    monkeypatch.setattr("mygpt.artifacts.corpus._ROW_GROUP_CHARACTERS", 100)  # about four lines of text
    parts = many(ManyConfig(documents=40), run=Run(run.home / "second", name="parts"))
    assert pq.ParquetFile(parts.payload / "passages.parquet").num_row_groups > 10
    assert pq.ParquetFile(whole.payload / "passages.parquet").num_row_groups == 1
    assert list(parts.stream_passages()) == whole.passages == parts.passages and len(whole.passages) == 10 * (0 + 1 + 2 + 3)
    assert list(parts.stream_documents()) == list(whole.documents.values())
    assert parts.manifest.facts == whole.manifest.facts
    assert [s.path for s in parts.skipped] == ["a.bin", "z.bin"]

    for numbers in ([], [0], [59], [3, 4, 5, 17, 58], list(range(60))):
        assert parts.passages_at(numbers) == [whole.passages[n] for n in numbers]
    chosen = {"d07", "d23", "d04", "never made"}  # d04 has no passage
    assert parts.passages_in(chosen) == [p for p in whole.passages if p.span.document_id in chosen] and len(parts.passages_in(chosen)) == 6
    assert parts.passages_in([]) == []
    assert parts.languages == {f"d{i:02}": "fr" if i % 3 == 0 else "en" for i in range(40)}
    assert parts.manifest.facts["languages"] == {"en": 26, "fr": 14}


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


def test_a_dataset_is_read_in_parts(run: Run) -> None:
    """More rows than are held at a time, as they were written; the schema is looked at before the first."""
    rows = [Conversation((Message("text", f"Text {n}."),), str(n), facts={"n": str(n)} if n % 2 else {}) for n in range(600)]

    @recipe
    def made(config: Config, *, run: Run) -> Dataset:
        splits = {"train": rows}
        return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=row_facts("text", splits))

    dataset = made(Config(), run=run)
    stream = dataset.stream("train")
    assert next(stream) == rows[0] and list(stream) == rows[1:] and dataset.split("train") == rows
    assert list(dataset.stream_texts("train"))[-1] == ("599", "Text 599.") and dataset.texts("train") == [f"Text {n}." for n in range(600)]
    assert list(dataset.stream_texts("test")) == []
    with pytest.raises(UsageError, match="has rows of the schema `text`"):
        dataset.preferences("train")


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
