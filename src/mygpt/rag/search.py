"""Find passages by words and by meaning: BM25 and exact cosine, merged by rank.

Source    reciprocal rank fusion, score(d) = sum over lists of 1 / (60 + rank of d): Cormack, Clarke, Buettcher 2009, SIGIR;
          BM25 as FTS5 has it (k1 = 1.2, b = 0.75)
We differ a passage without a stored vector (very large indexes) is embedded when its words were found
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mygpt.artifacts.corpus import Passage
from mygpt.artifacts.search_index import SearchIndex
from mygpt.core.errors import UsageError
from mygpt.infer.protocols import Embedder
from mygpt.rag.index import searched_text
from mygpt.rag.words import STOP_WORDS, TermWeights, spaced, words

RRF_K = 60
DEPTH = 100  # of each list before they are merged
_BEST_BY_WORDS = "SELECT rowid, -bm25(passages_fts) FROM passages_fts WHERE passages_fts MATCH ? ORDER BY bm25(passages_fts), rowid LIMIT ?"
_MOST_QUERY_WORDS = 64
_EMBEDDED_PER_QUERY = 20  # passages without a stored vector


@dataclass(frozen=True)
class Hit:
    """A passage that was found, and how."""

    passage: Passage
    score: float  # of the fusion; compare within one query only
    bm25: float | None  # higher is better; None: no word of the query stands there
    cosine: float | None  # with the query; None: no vector


class Search:
    def __init__(self, index: SearchIndex, embedder: Embedder):
        self.index = index
        self.embedder = embedder
        self.weights = TermWeights(index)
        with_vector = index.rows("SELECT number FROM passages WHERE vector IS NOT NULL ORDER BY vector")
        self._numbers_V = np.array([number for (number,) in with_vector], dtype=np.int64)

    def search(self, query: str, top: int = 10) -> list[Hit]:
        """The best `top` passages, best first. Any text is a query; one that says nothing finds nothing by words."""
        return self.search_all([query], top)[0]

    def search_all(self, queries: Sequence[str], top: int = 10) -> list[list[Hit]]:
        """`search` for many queries, which are embedded together."""
        if not queries or not self.index.manifest.facts["passages"]:
            return [[] for _ in queries]
        vectors_QD = self.embedder.embed(list(queries))
        return [self._search(query, vector_D, top) for query, vector_D in zip(queries, vectors_QD, strict=True)]

    def by_words(self, query: str, top: int = DEPTH) -> dict[int, float]:
        """Passage number -> BM25, best first. Higher is better (FTS5 itself gives the negative)."""
        expression = match_expression(query)
        if not expression:
            return {}
        return dict(self.index.rows(_BEST_BY_WORDS, (expression, top)))

    def _search(self, query: str, vector_D: np.ndarray, top: int) -> list[Hit]:
        by_words = self.by_words(query)
        cosines_V = self.index.vectors @ vector_D
        order_V = np.lexsort((self._numbers_V, -cosines_V))[:DEPTH] if len(cosines_V) else np.array([], dtype=np.int64)
        cosine = {int(self._numbers_V[v]): float(cosines_V[v]) for v in order_V}
        cosine |= self._late_cosines(by_words, vector_D)
        by_meaning = sorted(cosine, key=lambda number: (-cosine[number], number))[:DEPTH]
        fused = fuse([list(by_words), by_meaning])
        best = sorted(fused, key=lambda number: (-fused[number], number))[:top]
        cosine |= self._stored_cosines([n for n in best if n not in cosine], cosines_V)
        passages = self.index.passages(best)
        return [Hit(p, fused[n], by_words.get(n), cosine.get(n)) for n, p in zip(best, passages, strict=True)]

    def _stored_cosines(self, numbers: Sequence[int], cosines_V: np.ndarray) -> dict[int, float]:
        return {number: float(cosines_V[vector]) for number, vector in self._vector_rows(numbers)}

    def _late_cosines(self, by_words: dict[int, float], vector_D: np.ndarray) -> dict[int, float]:
        if len(self._numbers_V) == self.index.manifest.facts["passages"]:
            return {}
        stored = {number for number, _ in self._vector_rows(list(by_words))}
        late = [n for n in by_words if n not in stored][:_EMBEDDED_PER_QUERY]
        if not late:
            return {}
        cosines = self.embedder.embed([searched_text(p) for p in self.index.passages(late)]) @ vector_D
        return dict(zip(late, map(float, cosines), strict=True))

    def _vector_rows(self, numbers: Sequence[int]) -> list[tuple[int, int]]:
        """(passage, row of its vector) of those that have one."""
        marks = ",".join("?" * len(numbers))
        rows = self.index.rows(f"SELECT number, vector FROM passages WHERE vector IS NOT NULL AND number IN ({marks})", numbers)
        return [(number, vector) for number, vector in rows]


def open_search(index: SearchIndex, embedder: Embedder) -> Search:
    """Raises UsageError when `embedder` is not the one whose vectors the index holds; the number format may differ by machine."""
    made_with = index.manifest.facts["embedder"]
    if {**made_with, "dtype": None} != {**embedder.identity, "dtype": None}:
        raise UsageError(
            f"The index {index.id} was made with the embedder {made_with}, not with {embedder.identity}.",
            fix="Open it with its own embedder, or build the index again with this one.",
        )
    return Search(index, embedder)


def fuse(rankings: Sequence[Sequence[int]], k: int = RRF_K) -> dict[int, float]:
    """Reciprocal rank fusion of several rankings, best first; ranks count from 1."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + 1 / (k + rank)
    return scores


def match_expression(query: str) -> str:
    """An FTS5 expression that finds any word of `query`. Only words get in, each quoted: user text is never syntax."""
    found = list(dict.fromkeys(word for word in words(query) if any(c.isalnum() for c in word)))
    telling = [word for word in found if word not in STOP_WORDS] or found
    return " OR ".join(f'"{spaced(word).strip()}"' for word in telling[:_MOST_QUERY_WORDS])
