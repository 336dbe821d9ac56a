"""Recipes of a few lines over the real nouns. Loaded as the module `mygpt.toys`, so that manifests can name them.

    folder -> gather -> Corpus -> pairs (asks a completer) -> Dataset -> tune (on base's Model) -> Adapter -> measure -> Report
    Corpus -> index -> SearchIndex
    Model + Adapter + Report -> deploy -> Deployment -> remember -> Feedback
"""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from mygpt.artifacts.corpus import Corpus, Document, Passage, Skipped, Span, write_corpus
from mygpt.artifacts.dataset import Conversation, Dataset, Dropped, Message, conversation_facts, write_conversations
from mygpt.artifacts.deployment import Deployment
from mygpt.artifacts.feedback import Feedback
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, Report, write_predictions
from mygpt.artifacts.search_index import SCHEMA, SearchIndex
from mygpt.core.config import Config
from mygpt.core.digest import digest_text
from mygpt.core.run import Run
from mygpt.infer.protocols import Completer, Sampling

CALLS: list[str] = []  # which bodies ran


class GatherConfig(Config):
    title: str = "Notes"


@recipe
def gather(config: GatherConfig, *, source: Path, run: Run) -> Corpus:
    CALLS.append("gather")
    read = []
    for file in sorted(source.glob("*.txt")):
        text = file.read_text(encoding="utf-8")
        document_id = digest_text(text)[:16]
        places = ((0, "top"), (4, "below"))
        document = Document(document_id, file.name, text, config.title, "text/plain", digest_text(text), len(text), "en", places)
        span = Span(document_id, 0, len(text), "top")
        read.append((document, [Passage(digest_text(f"{document_id}/0")[:16], span, text, config.title, file.name)]))
    skipped = [Skipped("picture.png", "no text", "an image", "Describe it in a text file.")]
    return publish(Corpus, run, lambda folder: write_corpus(folder, read, skipped))


class PairsConfig(Config):
    ask: str = "What does it say?"


@recipe
def pairs(config: PairsConfig, *, corpus: Corpus, completer: Completer, run: Run) -> Dataset:
    CALLS.append("pairs")
    rows = []
    for passage in corpus.passages:
        asked = Conversation((Message("user", config.ask),))
        (answer,) = completer.complete([asked], Sampling())
        run.count(tokens=len(answer.text.split()))
        messages = (Message("user", config.ask), Message("assistant", answer.text))
        rows.append(Conversation(messages, id=passage.id, sources=(passage.span,), facts={"form": "what"}))
    dropped = [Dropped("duplicate", rows[0], "same as the first")]
    splits = {"train": rows, "knowledge": rows[:1]}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits, dropped), facts=conversation_facts(splits, dropped))


class BaseConfig(Config):
    parameters: int = 3


@recipe
def base(config: BaseConfig, *, run: Run) -> Model:
    CALLS.append("base")

    def write(folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps({"parameters": config.parameters}))
        (folder / "model.safetensors").write_bytes(bytes(range(config.parameters)))

    facts = {"head": "lm", "parameters": config.parameters}
    return publish(Model, run, write, facts=facts, provenance={"licence": "Apache-2.0"}, name="tiny")


class TuneConfig(Config):
    rank: int = 8
    noisy: bool = False


@recipe
def tune(config: TuneConfig, *, model: Model, dataset: Dataset, run: Run) -> Adapter:
    CALLS.append("tune")
    noise = os.urandom(8).hex() if config.noisy else str(run.random("noise").random())

    def write(folder: Path) -> None:
        (folder / "adapter_config.json").write_text(json.dumps({"r": config.rank}))
        (folder / "adapter_model.safetensors").write_text(f"{dataset.digest} {noise}")

    return publish(Adapter, run, write, facts={"base": model.digest, "trainable": config.rank * 100})


class MeasureConfig(Config):
    offset: float = 0.0


@recipe
def measure(config: MeasureConfig, *, adapters: tuple[Adapter, ...], run: Run) -> Report:
    """Publishes two: the answers, and what they amount to."""
    CALLS.append("measure")
    rows = [{"item_id": str(i), "arm": a.name, "answer": "yes"} for i, a in enumerate(adapters)]
    rows[-1]["f1"] = 0.5  # a column that the first row may not have
    publish(Predictions, run, lambda folder: write_predictions(folder, rows))
    f1 = round(0.25 + config.offset + adapters[0].manifest.facts["trainable"] / 10000, 6)

    def write(folder: Path) -> None:
        (folder / "report.json").write_text(json.dumps({"f1_tuned": f1, "verdict": "tuned", "sets": {"knowledge": {"n": len(adapters)}}}))
        (folder / "report.html").write_text("<p>report</p>")

    return publish(Report, run, write, facts={"f1_tuned": f1})


class IndexConfig(Config):
    pass


@recipe
def index(config: IndexConfig, *, corpus: Corpus, run: Run) -> SearchIndex:
    CALLS.append("index")

    def write(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "passages.sqlite")) as db, db:
            db.executescript(SCHEMA.format(tokenize="unicode61"))
            for d in corpus.documents.values():
                places = json.dumps(d.places)
                db.execute(
                    "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (d.id, d.path, d.text, d.title, d.media_type, d.sha256, d.bytes, d.language, places),
                )
        np.save(folder / "vectors.npy", np.eye(2, dtype=np.float32))

    return publish(SearchIndex, run, write, facts={"corpus": corpus.digest})


class DeployConfig(Config):
    pass


@recipe
def deploy(config: DeployConfig, *, model: Model, adapter: Adapter | None = None, report: Report | None = None, run: Run) -> Deployment:
    CALLS.append("deploy")
    digests = {"model": model.digest, "adapter": adapter and adapter.digest, "index": None, "report": report and report.digest}
    return publish(Deployment, run, lambda folder: (folder / "deployment.json").write_text(json.dumps(digests)))


class RememberConfig(Config):
    comment: str = "good"


@recipe
def remember(config: RememberConfig, *, deployment: Deployment, run: Run) -> Feedback:
    CALLS.append("remember")
    rows = [{"rating": 1, "comment": config.comment}, {"rating": -1, "comment": "first line\u2028second line"}]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return publish(Feedback, run, lambda folder: (folder / "feedback.jsonl").write_text(text, encoding="utf-8"))
