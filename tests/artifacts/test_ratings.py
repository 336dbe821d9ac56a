"""Ratings: what a line may be, what it means, and that it comes back as it was written."""

import json
from pathlib import Path
from typing import Any

import pytest

from mygpt.artifacts.ratings import Rating, Ratings, ShownAnswer, ratings_facts, read_ratings, write_ratings
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run

WHEN = "2026-11-21T16:00:00.000+00:00"
LINE: dict[str, Any] = {
    "item_id": "q1",
    "prompt": "When?",
    "answers": [{"system": "tuned", "text": "In March.\u2028"}, {"system": "base", "text": ""}, {"system": "rag", "text": "\U0001f389"}],
    "rater": "Ann",
    "choice": "ranking",
    "ranks": [1, 2, 1],
    "seconds": 12.5,
    "created": WHEN,
}


def rating(item: str, order: str, choice: str, *ranks: int, rater: str = "Ann") -> Rating:
    answers = tuple(ShownAnswer(system, f"says {system}") for system in order)
    return Rating(item, "?", answers, rater, choice, ranks, 1.0, WHEN)  # type: ignore[arg-type]


def test_what_a_rating_decides() -> None:
    assert rating("1", "abc", "ranking", 2, 1, 1).comparisons == [("a", "b", 0.0), ("a", "c", 0.0), ("b", "c", 0.5)]
    assert rating("1", "abc", "best", 2, 1, 2).comparisons == [("a", "b", 0.0), ("b", "c", 1.0)]  # a and c were not compared
    assert rating("1", "ab", "cannot judge").comparisons == []


class MadeConfig(Config):
    pass


@recipe
def made(config: MadeConfig, *, run: Run) -> Ratings:
    rows = [
        rating("1", "ab", "ranking", 1, 2),
        rating("1", "ba", "ranking", 1, 2, rater="Bo"),
        rating("2", "ba", "ranking", 1, 1),
        rating("3", "ab", "cannot judge"),
        rating("4", "acb", "best", 2, 1, 2),
    ]
    return publish(Ratings, run, lambda folder: write_ratings(folder, rows), facts=ratings_facts(rows))


def test_as_an_artefact(run: Run) -> None:
    ratings = made(MadeConfig(), run=run)
    assert ratings.id.startswith("ratings/")
    assert ratings.manifest.facts == {"ratings": 5, "items": 4, "raters": 2, "systems": ["a", "b", "c"], "cannot_judge": 1}
    assert ratings.preferences("a", "b") == {"1": [1.0, 0.0], "2": [0.5]}  # 3: nobody could; 4: neither is the best
    assert ratings.preferences("b", "a") == {"1": [0.0, 1.0], "2": [0.5]}
    assert ratings.preferences("c", "b") == {"4": [1.0]} and ratings.preferences("a", "nobody") == {}


def test_back_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "by_hand.jsonl").write_text(json.dumps(LINE, ensure_ascii=False) + "\n\n", encoding="utf-8")
    rows = read_ratings(tmp_path / "by_hand.jsonl")
    assert rows[0].answers[0] == ShownAnswer("tuned", "In March.\u2028") and rows[0].ranks == (1, 2, 1)
    write_ratings(tmp_path, rows)
    assert read_ratings(tmp_path / "ratings.jsonl") == rows
    assert json.loads((tmp_path / "ratings.jsonl").read_text()) == LINE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rater": None}, r"line 2: `rater`: Input should be a valid string"),
        ({"seconds": "5"}, r"line 2: `seconds`: Input should be a valid number"),
        ({"choice": "first"}, r"line 2: `choice`: Input should be 'ranking', 'best' or 'cannot judge'"),
        ({"answers": [{"system": "a"}]}, r"line 2: `answers.0.text`"),
        ({"extra": 1}, r"line 2: `extra`"),
        ({"ranks": [1, 2]}, r"line 2: `ranks` \[1, 2\] of 3 answers, choice `ranking`: each answer needs a place"),
        ({"ranks": [1, 3, 1]}, r"places go from 1 on without a gap"),
        ({"ranks": [0, 1, 2]}, r"places go from 1 on without a gap"),
        ({"choice": "best"}, r"the best is 1, all others 2"),
        ({"choice": "cannot judge"}, r"who cannot judge gives no ranks"),
        ({"rater": "  "}, r"`item_id` and `rater` must not be empty"),
        ({"seconds": -1.0}, r"`seconds` must be 0 or more: -1.0"),
        ({"created": "yesterday"}, r"`created` is not a time in ISO 8601: 'yesterday'"),
        ({"answers": [{"system": "a", "text": "x"}] * 2, "ranks": [1, 2]}, r"each of its own system: \['a', 'a'\]"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    (tmp_path / "r.jsonl").write_text(json.dumps(LINE) + "\n" + json.dumps({**LINE, **change}) + "\n")
    with pytest.raises(UsageError, match=f"r.jsonl, {words}" if words.startswith("line") else words):
        read_ratings(tmp_path / "r.jsonl")


def test_a_missing_field_and_broken_json_are_named(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(json.dumps({k: v for k, v in LINE.items() if k != "prompt"}))
    with pytest.raises(UsageError, match=r"r.jsonl, line 1: `prompt`"):
        read_ratings(tmp_path / "r.jsonl")
    (tmp_path / "r.jsonl").write_text('{"item_id": ')
    with pytest.raises(UsageError, match=r"r.jsonl, line 1: Invalid JSON"):
        read_ratings(tmp_path / "r.jsonl")
