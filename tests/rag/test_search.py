"""Word search against BM25 written out here, fusion by hand, and any text as a query."""

import math
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mygpt.core.errors import UsageError
from mygpt.rag.index import searched_text
from mygpt.rag.search import Search, fuse, match_expression, open_search
from tests.rag.toys import HashedWords

ODD_QUERIES = [
    *(
        "",
        "   ",
        "😀",
        '"',
        "''",
        "AND",
        "NEAR(a b)",
        "heron OR",
        "-heron",
        "heron*",
        "^heron",
        "text:heron",
        "(",
        "{}",
        "a AND NOT b",
        "_",
        "__init__",
    ),
    *(
        "\x00",
        "'; DROP TABLE passages; --",
        '"unclosed',
        "東京",
        "e\u0301\u0301",
        "\u0301",
        "½ ² ①",
        "word " * 5_000,
        "x" * 20_000,
        "\ud800",
        "٣٤",
    ),
]


@pytest.mark.parametrize("query", ODD_QUERIES, ids=lambda q: repr(q[:12]))
def test_any_text_is_a_query(ferries: Search, query: str) -> None:
    assert len(ferries.search(query, 3)) == 3
    assert ferries.index.rows("SELECT count(*) FROM passages") == [(4,)]


def test_words_of_the_query_are_never_syntax() -> None:
    assert match_expression('heron" OR text:*') == '"heron" OR "text"'
    assert match_expression("the of and") == '"the" OR "of" OR "and"'  # nothing else to go by
    assert match_expression("東京駅") == '"東 京" OR "京 駅"'


def test_bm25_is_that_of_the_formula(search_in: Callable[..., Search]) -> None:
    """k1 = 1.2, b = 0.75, IDF ln((N - n + 0.5) / (n + 0.5)); lengths count heading and text together."""
    texts = ["tide tide gauge at the quay", "gauge of the engine room", "bell and lamp", "lamp oil", "paint shed"]
    search = search_in({"a.txt": "\n\n".join(texts)})
    documents = [searched_text(p).lower().replace(">", " ").split() for p in search.index.passages(range(5))]
    average = sum(map(len, documents)) / 5
    expected = {}
    for number, document in enumerate(documents):
        counts, score = Counter(document), 0.0
        for term in ("tide", "gauge"):
            holding = sum(term in d for d in documents)
            frequency = counts[term] * 2.2 / (counts[term] + 1.2 * (0.25 + 0.75 * len(document) / average))
            score += math.log((5 - holding + 0.5) / (holding + 0.5)) * frequency
        if score:
            expected[number] = score
    assert list(search.by_words("tide gauge")) == [0, 1]
    assert search.by_words("tide gauge") == pytest.approx(expected, rel=1e-6)


def test_fusion_by_hand() -> None:
    """a: 1/61 + 1/62, b: 1/62 + 1/61, c: 1/63 (Cormack et al. 2009, k = 60)."""
    assert fuse([["a", "b", "c"], ["b", "a"]]) == pytest.approx({"a": 1 / 61 + 1 / 62, "b": 1 / 62 + 1 / 61, "c": 1 / 63})  # type: ignore[list-item]


def test_hits_carry_raw_scores(ferries: Search) -> None:
    query = "What does a carnet cost?"
    best, *rest = ferries.search(query, 4)
    assert best.passage.text.startswith("A carnet of ten crossings")
    vector_D = HashedWords().embed([query])[0]
    assert best.cosine == pytest.approx(float(HashedWords().embed([searched_text(best.passage)])[0] @ vector_D), abs=1e-6)
    assert best.bm25 == pytest.approx(max(ferries.by_words(query).values()))
    assert best.score == pytest.approx(2 / 61) and all(best.score > hit.score for hit in rest)
    assert [hit.bm25 for hit in rest].count(None) == 2  # the passages on boats


def test_a_passage_without_a_vector_is_found_by_its_words(search_in: Callable[..., Search]) -> None:
    search = search_in({"many.txt": "\n\n".join(f"Passage about topic{'abcdefghij'[i]}" for i in range(10))}, max_dense_passages=4)
    best = search.search("topicb", 1)[0]
    assert best.passage.text == "Passage about topicb"
    vector_D = HashedWords().embed(["topicb"])[0]
    assert best.cosine == pytest.approx(float(HashedWords().embed([searched_text(best.passage)])[0] @ vector_D), abs=1e-6)


def test_many_at_once_are_as_one_by_one(ferries: Search) -> None:
    queries = ["fog", "carnet", "Who built the Heron?"]
    assert ferries.search_all(queries, 3) == [ferries.search(query, 3) for query in queries]
    assert ferries.search_all([]) == []


def test_threads_share_one_search(ferries: Search) -> None:
    queries = ["fog", "carnet", "Heron", "children", "oak frames"] * 20
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ferries.search, queries)) == ferries.search_all(queries)


def test_characters_of_unspaced_scripts_are_found(search_in: Callable[..., Search]) -> None:
    search = search_in({"a.txt": "私は東京駅へ行きます\n\n京都は古い町です"}, language="ja")
    assert list(search.by_words("東京")) == [0]


def test_diacritics_do_not_matter(search_in: Callable[..., Search]) -> None:
    assert list(search_in({"a.txt": "Crème brûlée\n\ntea"}).by_words("creme BRULEE")) == [0]


def test_an_index_opens_with_its_own_embedder_only(ferries: Search) -> None:
    class Other(HashedWords):
        identity = {"engine": "other"}  # type: ignore[assignment]  # noqa: RUF012

    with pytest.raises(UsageError, match="was made with the embedder"):
        open_search(ferries.index, Other())


def test_another_number_format_of_the_same_embedder_opens_it(ferries: Search) -> None:
    """An index made where bfloat16 is fast is used where it is not."""

    class Rounded(HashedWords):
        identity = {**HashedWords().identity, "dtype": "bfloat16"}  # type: ignore[assignment]  # noqa: RUF012

    assert open_search(ferries.index, Rounded()).search("larch planks", 1)[0].passage.path == "boats.txt"


def test_dense_ranking_is_exact(ferries: Search) -> None:
    vector_D = HashedWords().embed(["larch planks"])[0]
    cosines = ferries.index.vectors @ vector_D
    hits = {hit.passage.id: hit.cosine for hit in ferries.search("larch planks", 4)}
    passages = ferries.index.passages(range(4))
    np.testing.assert_allclose([hits[p.id] for p in passages], cosines, atol=1e-6)
