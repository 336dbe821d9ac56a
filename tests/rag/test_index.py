"""The index holds everything that answering needs, and is the same for the same documents."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mygpt.artifacts.search_index import SearchIndex
from mygpt.artifacts.store import Store
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.rag.index import IndexConfig, build_index, searched_text
from mygpt.rag.search import Search
from tests.rag.toys import BOATS, FARES, HashedWords, WordsConfig, corpus_of


def test_facts_and_files(ferries: Search) -> None:
    manifest = ferries.index.manifest
    assert set(manifest.files) == {"passages.sqlite", "vectors.npy"}
    assert (manifest.facts["passages"], manifest.facts["documents"], manifest.facts["vectors"], manifest.facts["language"]) == (
        4,
        2,
        4,
        "en",
    )
    assert manifest.facts["dimensions"] == 256 and manifest.tools["embedder"] == manifest.facts["embedder"] == {"engine": "hashed words"}
    assert [i.digest for i in manifest.inputs["corpus"]] == [manifest.facts["corpus"]]


def test_passages_and_documents_are_read_without_the_corpus(ferries: Search) -> None:
    index = SearchIndex.open(Store(ferries.index.store.home), ferries.index.id)
    last, first = index.passages([3, 0])
    assert first.text == BOATS.split("\n\n")[0] and last.text == FARES.split("\n\n")[1]
    document = index.document(last.span.document_id)
    assert document.text == FARES and document.text[last.span.start : last.span.end] == last.text
    assert document.title == "Fares" and document.places == ((0, "paragraph 1"), (len(FARES.split("\n\n")[0]) + 2, "paragraph 2"))
    assert index.titles == [("boats.txt", "Boats"), ("fares.txt", "Fares")]
    assert index.place(document.id, 5) == "paragraph 1" and index.place(document.id, last.span.start) == "paragraph 2"


def test_an_unknown_document_is_an_error_with_a_way_out(ferries: Search) -> None:
    with pytest.raises(UsageError, match="holds no document ffff"):
        ferries.index.document("ffff")


def test_vectors_are_those_of_title_place_and_text(ferries: Search) -> None:
    texts = [searched_text(p) for p in ferries.index.passages(range(4))]
    assert texts[0].startswith("Boats > paragraph 1\nThe Heron carries 72")
    np.testing.assert_array_equal(ferries.index.vectors, HashedWords().embed(texts))


def test_the_same_documents_give_the_same_bytes(ferries: Search, ferries_folder: Path, run: Run) -> None:
    corpus = corpus_of(WordsConfig(), folder=ferries_folder, run=run)
    again = build_index(IndexConfig(max_dense_passages=1_000), corpus=corpus, embedder=HashedWords(), run=run)
    assert again.manifest.content == ferries.index.manifest.content


def test_asking_again_does_no_work(ferries: Search, ferries_folder: Path) -> None:
    run = Run(ferries.index.store.home, name="again")
    embedder = HashedWords()
    corpus = corpus_of(WordsConfig(), folder=ferries_folder, run=run)
    again = build_index(IndexConfig(max_dense_passages=1_000), corpus=corpus, embedder=embedder, run=run)
    assert again.digest == ferries.index.digest and embedder.embedded == []


def test_terms_count_passages(ferries: Search) -> None:
    """ "carnet" stands twice in one passage, "costs" in both passages on fares."""
    counts = dict(ferries.index.rows("SELECT term, passages FROM terms"))
    assert (counts["carnet"], counts["cost"], counts["heron"], counts["72"]) == (1, 2, 2, 1)


def test_above_the_limit_evenly_chosen_passages_get_a_vector(search_in: Callable[..., Search], run: Run) -> None:
    search = search_in({"many.txt": "\n\n".join(f"Passage about topic{i}" for i in range(10))}, max_dense_passages=4)
    assert search.index.vectors.shape == (4, 256)
    assert search.index.rows("SELECT number, vector FROM passages WHERE vector IS NOT NULL ORDER BY number") == [
        (0, 0),
        (2, 1),
        (5, 2),
        (7, 3),
    ]
    events = (run.folder / "events.jsonl").read_text()
    assert "10 passages: 4 get a vector now" in events


def test_no_documents_at_all(search_in: Callable[..., Search]) -> None:
    search = search_in({})
    assert search.index.vectors.shape == (0, 256) and search.search("anything") == []


@pytest.mark.parametrize(("language", "found"), [("en", True), ("de", False)])
def test_porter_stems_only_english(search_in: Callable[..., Search], language: str, found: bool) -> None:
    """Porter takes "relational" and "relate" to "relat" (the example of Porter 1980); German is not stemmed."""
    search = search_in({"a.txt": "a relational thing"}, language=language)
    assert bool(search.by_words("relate")) is found


def test_the_index_is_opened_read_only(ferries: Search) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        ferries.index.rows("DELETE FROM passages")


def test_a_home_may_be_a_relative_path(ferries: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    home = ferries.index.store.home
    monkeypatch.chdir(home.parent)
    assert len(SearchIndex.open(Store(Path(home.name)), ferries.index.id).titles) == 2
