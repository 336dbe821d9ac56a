"""Rankings as pairs, by hand: three answers, ties, the best alone, nobody's verdict; several people on the same answers."""

from typing import Any

import numpy as np
import pytest

from mygpt.artifacts.dataset import Dataset, Message
from mygpt.artifacts.ratings import Choice, Rating, Ratings, ShownAnswer, write_ratings
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
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
        (rating([2, 1, 3]), [(2, 1, 1), (2, 3, 2), (1, 3, 1)]),  # the second is best, the first next
        (rating([3, 2, 1]), [(3, 2, 1), (3, 1, 2), (2, 1, 1)]),
        (rating([1, 2, 2]), [(1, 2, 1), (1, 3, 1)]),  # a tie between the last two says nothing
        (rating([1, 1, 1]), []),
        (rating([2, 2, 1], "best"), [(3, 1, None), (3, 2, None)]),  # the other two were not compared
        (rating([], "cannot judge"), []),
        (rating([2, 1, 3], texts="113"), [(2, 3, 2), (1, 3, 1)]),  # the first two are the same text
        (rating([1, 1, 2]), [(1, 3, 1), (2, 3, 1)]),
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
        ("Ann", "21", 1), ("Ann", "23", 2), ("Ann", "13", 1), ("Bob", "12", 1), ("Bob", "13", 2), ("Bob", "23", 1),
    ]  # fmt: skip
    assert [(r.facts["agreement"], r.facts["annotators"]) for r in rows[:3]] == [("0.5", "2"), ("1", "2"), ("1", "2")]
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
    with pytest.raises(UsageError, match=r"None of the 1 ratings .* compares two answers"):
        preferences_from_ratings(PreferencesFromRatingsConfig(), ratings=rated(RatedConfig(ranks={"Ann": []}), run=run), run=run)


# -- several people on the same two answers ---------------------------------------------------------------------------------


class CrowdConfig(Config):
    ranks: dict[str, dict[str, list[int]]]  # item -> rater -> ranks


@recipe
def crowd(config: CrowdConfig, *, run: Run) -> Ratings:
    rows = [
        rating(ranks, "ranking" if ranks else "cannot judge", texts="123"[: len(ranks) or 2], rater=rater, item=item)
        for item, given in config.ranks.items()
        for rater, ranks in given.items()
    ]
    return publish(Ratings, run, lambda folder: write_ratings(folder, rows))


def joint(run: Run, ranks: dict[str, dict[str, list[int]]], **settings: Any) -> Dataset:
    return preferences_from_ratings(PreferencesFromRatingsConfig(**settings), ratings=crowd(CrowdConfig(ranks=ranks), run=run), run=run)


def of_pair(made: Dataset) -> dict[str, tuple[str, int | None, dict[str, str]]]:
    return {row.facts["item_id"]: (row.chosen[-1] + row.rejected[-1], row.margin, dict(row.facts)) for row in made.preferences("train")}


VOTES = {
    "clear": {"Ann": [1, 2], "Bo": [1, 2], "Cy": [2, 1]},
    "tied": {"Ann": [1, 1], "Bo": [1, 1], "Cy": [1, 2]},
    "open": {"Ann": [1, 2], "Bo": [2, 1]},
    "mixed": {"Ann": [2, 1], "Bo": [1, 1], "Cy": [1, 2]},
}


def test_the_majority(run: Run) -> None:
    """Two of three decide; a tie that two name is a tie; where no verdict has most there is no row."""
    found = of_pair(joint(run, VOTES, disagreement="majority"))
    assert list(found) == ["clear"]
    pair, margin, facts = found["clear"]
    assert (pair, margin, facts["agreement"], facts["annotators"], facts["agreeing"]) == ("12", 1, "0.6667", "3", "Ann, Bo")
    assert facts["mean_margin"] == "0.3333" and "probability" not in facts
    tied = of_pair(joint(run, VOTES, disagreement="majority", ties=True))
    assert list(tied) == ["clear", "tied"]
    assert (tied["tied"][1], tied["tied"][2]["probability"], tied["tied"][2]["agreement"]) == (0, "0.5", "0.6667")
    assert tied["tied"][2]["tie"] == "true" and "tie" not in tied["clear"][2]


def test_margins_of_several_raters(run: Run) -> None:
    """By 2, 2 and -1 places: 1 on average."""
    made = joint(run, {"q": {"Ann": [1, 2, 3], "Bo": [1, 2, 3], "Cy": [2, 3, 1]}}, disagreement="majority")
    rows = {row.chosen[-1] + row.rejected[-1]: row for row in made.preferences("train")}
    assert {pair: (row.margin, row.facts["mean_margin"], row.facts["agreement"]) for pair, row in rows.items()} == {
        "12": (1, "1", "1"), "13": (1, "1", "0.6667"), "23": (1, "0", "0.6667"),
    }  # fmt: skip
    assert all(row.annotator == "" for row in rows.values()) and rows["12"].id == "q/s1/s2"


def test_soft_labels_know_who_can_be_trusted(run: Run) -> None:
    """Ann and Bo agree 60 times; Cy and Dee, who toss coins, outvote nobody: where both are against Ann alone, Ann is believed."""
    rng = np.random.default_rng(3)
    toss = [[1, 2], [2, 1]]
    ranks: dict[str, dict[str, list[int]]] = {}
    for n in range(60):
        truth = toss[int(rng.random() < 0.5)]
        ranks[f"q{n}"] = {"Ann": truth, "Bo": truth, "Cy": toss[int(rng.random() < 0.5)], "Dee": toss[int(rng.random() < 0.5)]}
    ranks["against"] = {"Ann": [1, 2], "Cy": [2, 1], "Dee": [2, 1]}
    made = joint(run, ranks, disagreement="soft")
    pair, margin, facts = of_pair(made)["against"]
    assert pair == "12" and float(facts["probability"]) > 0.9 and facts["agreement"] == "0.3333" and margin == 1
    assert all(0.5 < float(row.facts["probability"]) <= 1 for row in made.preferences("train"))
    assert of_pair(joint(run, ranks, disagreement="majority"))["against"][0] == "21"
    told = made.manifest.facts
    annotators = told["annotators"]
    assert list(annotators) == ["Ann", "Bo", "Cy", "Dee"] and annotators["Ann"]["pairs"] == 61 and annotators["Bo"]["shared_pairs"] == 60
    assert annotators["Ann"]["low"] > 0.8 and annotators["Cy"]["low"] < 0.5 < annotators["Cy"]["high"]
    assert told["pairs_judged"] == 61 and 0 < told["krippendorff_alpha"] < 0.6
    assert set(told["strengths"]) == {"s1", "s2"}
    assert "Cy: right on" in told["sentences"][2] and told["sentences"][2].endswith("No better than a coin, as far as can be told.")
    assert told["sentences"][4].startswith("Krippendorff's alpha of their verdicts: 0.")


def test_who_is_contrary_is_named(run: Run) -> None:
    ranks = {f"q{n}": {"Ann": [1, 2], "Bo": [1, 2], "Con": [2, 1]} for n in range(30)}
    facts = joint(run, ranks).manifest.facts
    assert facts["annotators"]["Con"]["high"] < 0.5
    assert "Con: right on 0.0" in facts["sentences"][2] and "Says the opposite of the others" in facts["sentences"][2]
    alone = joint(run, {f"q{n}": {"Ann": [1, 2]} for n in range(30)}).manifest.facts
    assert alone["annotators"]["Ann"] == {"pairs": 30, "shared_pairs": 0, "ties": 0, "reliability": None, "low": None, "high": None}
    assert alone["krippendorff_alpha"] is None and "nothing is known" in alone["sentences"][0]


def test_ties_can_be_kept(run: Run) -> None:
    made = joint(run, {"q": {"Ann": [1, 1, 2], "Bo": [1, 1, 2]}}, ties=True)
    rows = [row for row in made.preferences("train") if row.annotator == "Ann"]
    assert [(row.chosen[-1] + row.rejected[-1], row.margin, row.facts.get("probability")) for row in rows] == [
        ("12", 0, "0.5"), ("13", 1, None), ("23", 1, None),
    ]  # fmt: skip
    soft = joint(run, {"q": {"Ann": [1, 1, 2], "Bo": [1, 1, 2]}}, ties=True, disagreement="soft")
    assert [row.facts["probability"] for row in soft.preferences("train") if row.margin == 0] == ["0.5"]
    assert [row.facts.get("tie") for row in soft.preferences("train")] == [row.facts.get("tie") for row in rows] == ["true", None, None]
    split = joint(run, {"q": {"Ann": [1, 2], "Bo": [2, 1]}}, ties=True, disagreement="soft").preferences("train")
    assert [(row.facts["probability"], row.facts.get("tie")) for row in split] == [("0.5", None)]  # two who disagree, no tie


def test_held_out_by_prompt(run: Run) -> None:
    ratings = prompts_apart(ApartConfig(), run=run)
    made = preferences_from_ratings(PreferencesFromRatingsConfig(held_out_share=0.25), ratings=ratings, run=run)
    asked = [{row.prompt for row in made.preferences(split)} for split in ("train", "test")]
    assert (len(asked[0]), len(asked[1])) == (6, 2) and not asked[0] & asked[1] and made.manifest.facts["rows"] == {"train": 18, "test": 6}


class ApartConfig(Config):
    pass


@recipe
def prompts_apart(config: ApartConfig, *, run: Run) -> Ratings:
    shown = tuple(ShownAnswer(f"s{number}", f"answer {number}") for number in (1, 2, 3))
    rows = [Rating(f"q{n}", f"Question {n}?", shown, "Ann", "ranking", (1, 2, 3), 2.0, "2026-11-25T10:00:00+00:00") for n in range(8)]
    return publish(Ratings, run, lambda folder: write_ratings(folder, rows))


class AskedConfig(Config):
    item: str = "q1"
    question: str = "Which?"


@recipe
def asked(config: AskedConfig, *, run: Run) -> Predictions:
    turns = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Which?"}]
    rows = [{"item_id": config.item, "question": config.question, "messages": turns, "answers": []}]
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts={"candidates": True})


def test_turns_come_back_from_the_candidates(run: Run) -> None:
    ratings = rated(RatedConfig(ranks={"Ann": [1, 2, 3]}), run=run)
    made = preferences_from_ratings(PreferencesFromRatingsConfig(), ratings=ratings, candidates=asked(AskedConfig(), run=run), run=run)
    assert [m.role for m in made.preferences("train")[0].prompt] == ["user", "assistant", "user"]
    for other in (AskedConfig(item="q2"), AskedConfig(question="Who?")):
        with pytest.raises(UsageError, match="has no prompt for item `q1` that reads as it was rated"):
            preferences_from_ratings(PreferencesFromRatingsConfig(), ratings=ratings, candidates=asked(other, run=run), run=run)


class MixedConfig(Config):
    pass


@recipe
def mixed_up(config: MixedConfig, *, run: Run) -> Ratings:
    rows = [rating([1, 2, 3]), rating([1, 2, 3], texts="124", rater="Bo")]
    return publish(Ratings, run, lambda folder: write_ratings(folder, rows))


def test_two_texts_under_one_name_are_refused(run: Run) -> None:
    with pytest.raises(UsageError, match=r"Two ratings of item `q1` are of different texts .*by Bo, system `s3`"):
        preferences_from_ratings(PreferencesFromRatingsConfig(), ratings=mixed_up(MixedConfig(), run=run), run=run)
