"""The toy index of the quick tests, and the sample handbook with the real embedder for the figures."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mygpt.artifacts.model import Model
from mygpt.core.run import Run
from mygpt.rag.index import IndexConfig, build_index
from mygpt.rag.search import Search, open_search
from tests.rag.toys import BOATS, FARES, HashedWords, WordsConfig, corpus_of

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def search_in(tmp_path: Path, run: Run) -> Callable[..., Search]:
    """Files by name -> a Search over them, with the embedder of hashed words."""

    return partial(_search_in, tmp_path / "documents", run)


def _search_in(folder: Path, run: Run, files: dict[str, str], *, language: str = "en", max_dense_passages: int = 1_000) -> Search:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    embedder = HashedWords()
    corpus = corpus_of(WordsConfig(language=language), folder=folder, run=run)
    index = build_index(IndexConfig(max_dense_passages=max_dense_passages), corpus=corpus, embedder=embedder, run=run)
    return open_search(index, embedder)


@pytest.fixture(scope="session")
def ferries_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ferries") / "documents"


@pytest.fixture(scope="session")
def ferries(ferries_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Search:
    run = Run(tmp_path_factory.mktemp("home"), name="ferries")
    return _search_in(ferries_folder, run, {"boats.txt": BOATS, "fares.txt": FARES})


@pytest.fixture(scope="session")
def handbook(minilm: Model, tmp_path_factory: pytest.TempPathFactory) -> Search:
    from mygpt.data.ingest import IngestConfig, ingest
    from mygpt.infer.cached import CachedEmbedder
    from mygpt.infer.torch_embedder import TorchEmbedder

    home = tmp_path_factory.mktemp("handbook")
    run = Run(home, name="handbook")
    embedder = CachedEmbedder(TorchEmbedder(minilm), home / "cache" / "vectors.sqlite")
    corpus = ingest(IngestConfig(), sources=(REPOSITORY / "examples" / "handbook",), run=run)
    return open_search(build_index(IndexConfig(), corpus=corpus, embedder=embedder, run=run), embedder)
