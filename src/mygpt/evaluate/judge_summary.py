"""What judged pairs amount to: a win rate with its interval, what speaks against it, and what people say of the same pairs.

summarise               win rate, at equal length and style too; ties, unparsed verdicts, agreement of the orders, preference for a place
agreement_with_people   Cohen's kappa with human ratings, and the win rate corrected by them

Intervals are bootstraps over clusters (prompts), so that several answers to one prompt do not pass for several prompts.

Source: Zheng et al. 2023, arXiv:2306.05685, section 3.4 (orders); `metrics/length_controlled`, `metrics/style_controlled` and
        `metrics/prediction_powered`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mygpt.artifacts.ratings import Ratings
from mygpt.artifacts.report import Predictions
from mygpt.core.errors import UsageError
from mygpt.metrics.agreement import cohen_kappa
from mygpt.metrics.bootstrap import Interval, bootstrap_mean
from mygpt.metrics.length_controlled import LengthControlled, length_controlled_win_rate
from mygpt.metrics.prediction_powered import PredictionPowered, prediction_powered_mean
from mygpt.metrics.style_controlled import StyleControlledRate, Styles, style_controlled_win_rate, style_of

RELIABLE_FROM = 30  # prompts


@dataclass(frozen=True)
class PairSummary:
    """Of the first model against the second."""

    num_items: int
    num_prompts: int  # independent ones among the items that were read
    num_unparsed: int
    wins: int  # both orders name the first
    losses: int  # both orders name the second
    ties: int  # the orders disagree, or neither prefers
    win_rate: Interval  # mean preference over the items that were read
    length_controlled: LengthControlled
    style_controlled: StyleControlledRate  # length and markdown taken out together
    lowest: float  # the win rate, were every unparsed pair lost
    highest: float  # were every unparsed pair won
    swap_consistency: float | None  # share of pairs on which both orders name the same answer; None where there were no orders
    position_bias: Interval | None  # mean chance that the answer shown first is preferred, less 0.5
    mean_length_difference: float  # first - second, characters
    mean_mass: float | None  # probability that the judge gave to the allowed verdicts at all

    @property
    def counted_win_rate(self) -> float:
        """Wins and half the ties: what a judge without probabilities would say."""
        return (self.wins + self.ties / 2) / (self.num_items - self.num_unparsed)

    @property
    def reliable(self) -> bool:
        """Whether there are enough prompts for an interval to be taken at its word."""
        return self.num_prompts >= RELIABLE_FROM


@dataclass(frozen=True)
class HumanAgreement:
    """Judge and people on the pairs that both judged. Of several raters of a pair, their mean."""

    num_labelled: int
    num_unparsed: int  # of the labelled pairs: in none of these figures
    agreement: float  # share of pairs with the same verdict: first, second or tie
    kappa: float | None  # the same beyond chance; None where one verdict was all that either gave
    win_rate: PredictionPowered


def summarise(judged: Predictions, *, num_resamples: int = 10_000, level: float = 0.95, seed: int = 0) -> PairSummary:
    """Of what `judge_pairs` or `graded_pairs` made."""
    rows, read = _read_rows(judged)
    clusters = [row["cluster"] for row in read]
    if len(set(clusters)) < 2:
        what = f"All {len(read)} pairs of {judged.id} that were read come from one prompt, so nothing says how far their mean may be off."
        raise UsageError(what, fix="Judge answers to two prompts or more; below 30 an interval is unreliable.")
    preferences = [row["preference"] for row in read]
    differences = [float(row["first_length"] - row["second_length"]) for row in read]
    masses = [
        row[f"{one}_mass"] for row in read for one in ("forward", "backward", "first", "second") if row.get(f"{one}_mass") is not None
    ]
    unparsed, won = len(rows) - len(read), sum(preferences)
    in_orders = all("forward" in row for row in read)
    # Of the answer shown first: in the second order, that is the other one.
    first_place = [(row["forward"] + 1 - row["backward"]) / 2 - 0.5 for row in read] if in_orders else []
    resampling: dict[str, Any] = {"clusters": clusters, "level": level, "seed": seed}
    return PairSummary(
        num_items=len(rows),
        num_prompts=len(set(clusters)),
        num_unparsed=unparsed,
        wins=sum(row["winner"] == "first" for row in read),
        losses=sum(row["winner"] == "second" for row in read),
        ties=sum(row["winner"] == "tie" for row in read),
        win_rate=bootstrap_mean(preferences, num_resamples=num_resamples, **resampling),
        length_controlled=length_controlled_win_rate(preferences, differences, num_resamples=min(num_resamples, 2_000), **resampling),
        style_controlled=style_controlled_win_rate(
            preferences, [styles_of(row) for row in read], num_resamples=min(num_resamples, 1_000), **resampling
        ),
        lowest=won / len(rows),
        highest=(won + unparsed) / len(rows),
        swap_consistency=sum(row["consistent"] for row in read) / len(read) if in_orders else None,
        position_bias=bootstrap_mean(first_place, num_resamples=num_resamples, **resampling) if in_orders else None,
        mean_length_difference=sum(differences) / len(differences),
        mean_mass=sum(masses) / len(masses) if masses else None,
    )


def styles_of(row: Mapping[str, Any]) -> Styles:
    return style_of(row["first_answer"]), style_of(row["second_answer"])


def agreement_with_people(judged: Predictions, ratings: Ratings, *, first: str, second: str, level: float = 0.95) -> HumanAgreement:
    """`first` and `second` are the systems' names in the ratings. The rated items should be a random part of those judged."""
    rows, read = _read_rows(judged)
    _require_same_answers(rows, ratings, {first: "first_answer", second: "second_answer"})
    by_item = {item: sum(values) / len(values) for item, values in ratings.preferences(first, second).items()}
    people = [by_item.get(row["item_id"]) for row in read]
    both = [(row["winner"], _verdict(value)) for row, value in zip(read, people, strict=True) if value is not None]
    labelled = sum(row["item_id"] in by_item for row in rows)
    if len(both) < 2:
        raise UsageError(
            f"{len(both)} pairs of {judged.id} have both a verdict and a rating of `{first}` against `{second}`.",
            fix=f"Rate at least two of them (fifty are better). Systems that were rated: {', '.join(_systems(ratings)) or 'none'}.",
        )
    try:
        corrected = prediction_powered_mean(
            [row["preference"] for row in read], people, clusters=[row["cluster"] for row in read], level=level
        )
    except ValueError as error:
        raise UsageError(f"The win rate cannot be corrected: {error}.", fix="Rate pairs of other prompts, too.") from error
    return HumanAgreement(
        num_labelled=labelled,
        num_unparsed=labelled - len(both),
        agreement=sum(one == other for one, other in both) / len(both),
        kappa=cohen_kappa([one for one, _ in both], [other for _, other in both]),
        win_rate=corrected,
    )


def _read_rows(judged: Predictions) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All rows, and those whose verdict could be read."""
    rows = judged.rows
    if rows and "preference" not in rows[0]:
        raise UsageError(f"{judged.id} holds no judged pairs.", fix="Give what `judge_pairs` or `graded_pairs` made.")
    read = [row for row in rows if row["parsed"]]
    if len(read) < 2:
        raise UsageError(
            f"Of {len(rows)} verdicts in {judged.id} only {len(read)} could be read.",
            fix="See `forward_output` in its rows; name a scorer as judge, or another model.",
        )
    return rows, read


def _require_same_answers(rows: list[dict[str, Any]], ratings: Ratings, columns: Mapping[str, str]) -> None:
    judged = {row["item_id"]: row for row in rows}
    other = [
        rating.item_id
        for rating in ratings.rows
        if rating.item_id in judged
        and any(answer.text != judged[rating.item_id][columns[answer.system]] for answer in rating.answers if answer.system in columns)
    ]
    if other:
        raise UsageError(
            f"{len(other)} ratings in {ratings.id} are of other answers than those that were judged, the first of item {other[0]}.",
            fix="Rate the answers of the same two predictions.",
        )


def _systems(ratings: Ratings) -> list[str]:
    return sorted({answer.system for rating in ratings.rows for answer in rating.answers})


def _verdict(preference: float) -> str:
    return "first" if preference > 0.5 else "second" if preference < 0.5 else "tie"
