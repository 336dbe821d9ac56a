"""The cache of scores: what it saves, what it never keeps, and that it never stands in the way."""

import math
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mygpt.core.errors import MygptError
from mygpt.infer import cached_scorer
from mygpt.infer.cached_scorer import CachedScorer
from mygpt.infer.protocols import Identity, Score


class Counting:
    """Scores by length, remembers its calls; "nan" is no number, and "break" breaks while `broken`."""

    def __init__(self, name: str = "counting"):
        self.name = name
        self.calls: list[list[tuple[str, str]]] = []
        self.broken = True

    @property
    def identity(self) -> Identity:
        return {"engine": "counting", "name": self.name}

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        pairs = list(zip(prompts, continuations, strict=True))
        self.calls.append(pairs)
        if self.broken and any("break" in pair for pair in pairs):
            raise MygptError("It broke.", fix="Mend it.")
        return [Score(math.nan if c == "nan" else -float(len(p + c)) - 0.1, len(c), len(c.encode())) for p, c in pairs]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "scores.sqlite"


def test_a_second_call_computes_nothing(path: Path) -> None:
    inner = Counting()
    first = CachedScorer(inner, path).score(["q", "q", "q"], [" a", " bé", " a"])
    second = CachedScorer(inner, path).score(["q", "r"], [" bé", " a"])
    assert first == [Score(-3.1, 2, 2), Score(-4.1, 3, 4), Score(-3.1, 2, 2)]
    assert second == [first[1], Score(-3.1, 2, 2)]
    assert inner.calls == [[("q", " a"), ("q", " bé")], [("r", " a")]]
    assert CachedScorer(inner, path).identity == inner.identity


def test_another_model_and_another_seam_are_not_found(path: Path) -> None:
    one, other = Counting("one"), Counting("other")
    CachedScorer(one, path).score(["ab"], ["c"])
    CachedScorer(other, path).score(["ab"], ["c"])
    CachedScorer(one, path).score(["a"], ["bc"])
    assert (len(one.calls), len(other.calls)) == (2, 1)


def test_interrupted_work_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_scorer, "_ASKED_AT_ONCE", 2)
    inner = Counting()
    prompts, texts = ["p1"] * 3 + ["p2", "p3"], ["a", "b", "c", "d", "break"]
    with pytest.raises(MygptError):
        CachedScorer(inner, path).score(prompts, texts)
    # three choices of one prompt stay together although two would be enough for a call
    assert [len(call) for call in inner.calls] == [3, 2]
    inner.broken = False
    assert len(CachedScorer(inner, path).score(prompts, texts)) == 5
    assert inner.calls[2:] == [[("p2", "d"), ("p3", "break")]]


def test_what_is_no_number_is_not_kept(path: Path) -> None:
    inner = Counting()
    for _ in range(2):
        scores = CachedScorer(inner, path).score(["q", "q"], ["nan", "ok"])
        assert math.isnan(scores[0].logprob) and scores[1].logprob == -3.1
    assert inner.calls == [[("q", "nan"), ("q", "ok")], [("q", "nan")]]


def test_a_damaged_cache_costs_time_only(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database, this is no database, this is no database")
    assert CachedScorer(Counting(), path).score(["q"], ["a"]) == [Score(-2.1, 1, 1)]
    path.unlink()
    CachedScorer(Counting(), path).score(["q"], ["a"])
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE scores_{cached_scorer._SCHEMA} SET logprob = 'torn'")
    db.close()
    assert CachedScorer(Counting(), path).score(["q"], ["a"]) == [Score(-2.1, 1, 1)]


def test_whether_it_was_greedy_is_kept_and_an_older_table_is_not_read(path: Path) -> None:
    class Telling(Counting):
        def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
            told = {"yes": True, "no": False, "unsaid": None}
            scores = super().score(prompts, continuations)
            return [replace(score, is_greedy=told[c]) for score, c in zip(scores, continuations, strict=True)]

    path.parent.mkdir()
    with sqlite3.connect(path) as db:  # as it was before scores told
        db.execute("CREATE TABLE scores (key TEXT PRIMARY KEY, logprob REAL, num_tokens INTEGER, num_bytes INTEGER) WITHOUT ROWID")
    db.close()
    inner = Telling()
    for _ in range(2):
        scores = CachedScorer(inner, path).score(["q"] * 3, ["yes", "no", "unsaid"])
        assert [score.is_greedy for score in scores] == [True, False, None]
    assert len(inner.calls) == 1


def test_what_came_before_a_fault_is_kept(path: Path) -> None:
    """At pair 900 of 1,000, all of one call: 900 are known to the next, also where no portion was full."""

    class Coming(Counting):
        def as_scored(self, prompts: Sequence[str], continuations: Sequence[str]) -> Iterator[tuple[int, Score]]:
            for place, pair in reversed(list(enumerate(zip(prompts, continuations, strict=True)))):
                (score,) = self.score(*([one] for one in pair))
                yield place, score

    inner = Coming()
    texts = [f" {n}" for n in range(1000)]
    texts[99] = "break"  # the 901st from behind
    with pytest.raises(MygptError, match="It broke"):
        CachedScorer(inner, path).score(["q"] * 1000, texts)
    assert len(inner.calls) == 901
    inner.broken = False
    scores = CachedScorer(inner, path).score(["q"] * 1000, texts)
    assert len(inner.calls) == 901 + 100
    assert scores == Counting("other").score(["q"] * 1000, [*texts[:99], "brea_", *texts[100:]])
