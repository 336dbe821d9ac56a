"""Rankings as pairs, by hand: three answers, ties, the best alone, nobody's verdict."""

import pytest

from mygpt.artifacts.dataset import Dataset, Message
from mygpt.artifacts.ratings import Choice, Rating, Ratings, ShownAnswer, write_ratings
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.data.preferences_from_ratings import PreferencesFromRatingsConfig, pairs, preferences_from_ratings


def rating(ranks: list[int], choice: Choice = "ranking", texts: str = "123", rater: str = "Ann", item: str = "q1") -> Rating:
    shown = tuple(ShownAnswer(f"s{number}", f"answer {text}") for number, text in enumerate(texts, 1))
    return Rating(item, "Which?", shown, rater, choice, tuple(ranks), 2.0, "2026-11-25T10:00:00+00:00")


class RatedConfig(Config):
    ranks: dict[str, list[int]]  # by rater


@recipe
def rated(config: RatedConfig, *, run: Run) -> Ratings:
    rows = [rating(ranks, "ranking" if ranks else "cannot judge", rater=rater) for rater, ranks in config.ranks.items()]
    return publish(Ratings, run, lambda folder: write_ratings(folder, rows))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (rating([2, 1, 3]), [(2, 1, 1), (1, 3, 1), (2, 3, 2)]),  # the second is best, the first next
        (rating([1, 2, 2]), [(1, 2, 1), (1, 3, 1)]),  # a tie between the last two says nothing
        (rating([1, 1, 1]), []),
        (rating([2, 2, 1], "best"), [(3, 1, None), (3, 2, None)]),  # the other two were not compared
        (rating([], "cannot judge"), []),
        (rating([2, 1, 3], texts="113"), [(1, 3, 1), (2, 3, 2)]),  # the first two are the same text
    ],
)
def test_pairs_by_hand(given: Rating, expected: list[tuple[int, int, int | None]]) -> None:
    found = [(int(p.facts["chosen"][1]), int(p.facts["rejected"][1]), p.margin) for p in pairs([given])]
    assert found == expected


def test_the_dataset_keeps_who_said_it_and_by_how_much(run: Run) -> None:
    """Ann and Bob disagree; both are kept. Cid could not judge."""
    ratings = rated(RatedConfig(ranks={"Ann": [2, 1, 3], "Bob": [1, 2, 3], "Cid": []}), run=run)
    made = preferences_from_ratings(PreferencesFromRatingsConfig(), ratings=ratings, run=run)
    assert isinstance(made, Dataset)
    rows = made.preferences("train")
    assert [(r.annotator, r.chosen[-1] + r.rejected[-1], r.margin) for r in rows] == [
        ("Ann", "21", 1), ("Ann", "13", 1), ("Ann", "23", 2), ("Bob", "12", 1), ("Bob", "13", 2), ("Bob", "23", 1),
    ]  # fmt: skip
    assert rows[0].prompt == (Message("user", "Which?"),) and rows[0].id == "q1/Ann/s2/s1" and len({r.id for r in rows}) == 6
    facts = made.manifest.facts
    assert (facts["schema"], facts["rows"], facts["ratings"], facts["ratings_without_pair"]) == ("preference", {"train": 6}, 3, 1)
    one = preferences_from_ratings(PreferencesFromRatingsConfig(raters=("Bob",)), ratings=ratings, run=run)
    assert isinstance(one, Dataset) and {r.annotator for r in one.preferences("train")} == {"Bob"}


def test_refused(run: Run) -> None:
    with pytest.raises(UsageError, match="Zoe rated nothing"):
        ratings = rated(RatedConfig(ranks={"Ann": [1, 2, 3]}), run=run)
        preferences_from_ratings(PreferencesFromRatingsConfig(raters=("Zoe",)), ratings=ratings, run=run)
    with pytest.raises(UsageError, match="None of the 1 ratings"):
        preferences_from_ratings(PreferencesFromRatingsConfig(), ratings=rated(RatedConfig(ranks={"Ann": [1, 1, 1]}), run=run), run=run)
