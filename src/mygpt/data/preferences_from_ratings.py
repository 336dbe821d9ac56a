"""What people ranked, as pairs to learn from: each pair of answers that a rating decides, the preferred one first.

A ranking of three answers without ties gives three pairs, those of the best answer first: where the second is best and the first next, the
pairs are (2, 1), (2, 3), (1, 3). "The best" is preferred to each other answer, and nothing is said of the others among themselves; "cannot
judge" gives none. A tie gives none, or with `ties` a row with the fact `tie`, whose `probability` is 0.5. Where several people judged the
same two answers:

    each       a row for every rater's verdict, those who disagree too
    majority   one row, as most of them said; none where no verdict has most
    soft       one row, with the fact `probability`: that the chosen answer is better, by what was said and by how reliable its raters are

Every row tells how many judged the pair (`annotators`), which share of them said what the row says (`agreement`), and by how many places
(`margin`: 1 between neighbours; of several raters the mean, at least 1, and as it is in the fact `mean_margin`).

Source: Ouyang et al. 2022, arXiv:2203.02155, section 3.4: a ranking of K answers as its K (K - 1) / 2 comparisons; Dawid and Skene 1979
        (`metrics/dawid_skene`) for the probabilities.
We differ: ties are skipped there, too, but answers of equal text by two systems are skipped as well, since nothing can be learnt of them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from mygpt.artifacts.dataset import Dataset, Message, Preference, Role, preference_facts, write_preferences
from mygpt.artifacts.ratings import Rating, Ratings
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.data.rater_reliability import rater_facts, votes_of
from mygpt.data.row_splits import opening, train_and_test
from mygpt.metrics.dawid_skene import PairReliability, pair_reliability


class PreferencesFromRatingsConfig(Config):
    raters: tuple[str, ...] = ()  # whose ratings count; default: everybody's
    disagreement: Literal["each", "majority", "soft"] = "each"
    ties: bool = False  # keep tied pairs, with the fact `tie` and `probability` 0.5; which answer stands first then means nothing
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of the prompts, as the split `test`


@recipe
def preferences_from_ratings(
    config: PreferencesFromRatingsConfig, *, ratings: Ratings, candidates: Predictions | None = None, run: Run
) -> Dataset:
    """`candidates` (`mygpt align candidates`) gives prompts of several turns back their turns, which the page shows as one text."""
    unknown = set(config.raters) - {rating.rater for rating in ratings.rows}
    if unknown:
        known = ", ".join(sorted({rating.rater for rating in ratings.rows})) or "nobody"
        raise UsageError(f"{sorted(unknown)[0]} rated nothing in {ratings.id}.", fix=f"Raters are: {known}.")
    used = [rating for rating in ratings.rows if not config.raters or rating.rater in config.raters]
    require_one_text(used)
    prompts = {} if candidates is None else prompts_of(candidates, used)
    votes = votes_of(used)
    if not votes:
        raise UsageError(f"None of the {len(used)} ratings in {ratings.id} compares two answers.", fix="Rate more items.")
    progress = run.progress(len(votes), "verdicts weighed")
    found = pair_reliability(votes, seed=run.seed_for("raters") >> 31)
    progress.advance(len(votes))
    if config.disagreement == "each":
        rows = list(pairs(used, prompts, ties=config.ties))
    else:
        rows = list(joint_pairs(used, prompts, found if config.disagreement == "soft" else None, ties=config.ties))
    if not rows:
        raise UsageError(f"None of the {len(used)} ratings in {ratings.id} prefers one answer to another.", fix="Rate more items.")
    splits = train_and_test(rows, None, share=config.held_out_share, text_of=opening, order=run.random("held out"), run=run)
    splits = {name: part for name, part in splits.items() if part}
    facts = {
        **preference_facts(splits),
        "ratings": len(used),
        "ratings_without_pair": sum(not list(pairs([rating])) for rating in used),
        "pairs_judged": len({(vote.group, *sorted((vote.first, vote.second))) for vote in votes}),
        **rater_facts(votes, found),
    }
    return publish(Dataset, run, lambda folder: write_preferences(folder, splits), facts=facts)


@dataclass(frozen=True)
class _Verdict:
    """What one rater said of two answers."""

    rater: str
    first_is_better: float  # 1, 0, or 0.5 for a tie
    places: int | None  # by which the first stands before the second; None where places were not given


_Pair = tuple[str, str, str]  # item, and two systems by name


def pairs(
    ratings: Sequence[Rating], prompts: Mapping[str, tuple[Message, ...]] | None = None, *, ties: bool = False
) -> Iterator[Preference]:
    """Every rater's own. Of one rating the best answer's pairs first, each with the next best before the others."""
    judged = _verdicts(ratings)
    for rating in ratings:
        place = {answer.system: number for number, answer in enumerate(rating.answers)}
        text = {answer.system: answer.text for answer in rating.answers}
        rank = dict(zip(place, rating.ranks, strict=False))
        decided = [(one, other) if value >= 0.5 else (other, one) for one, other, value in rating.comparisons]
        for better, worse in sorted(decided, key=lambda pair: [(rank[system], place[system]) for system in pair]):
            is_tie = rank[better] == rank[worse]
            if text[better].strip() == text[worse].strip() or (is_tie and not ties):
                continue
            verdicts = judged[_pair(rating.item_id, better, worse)]
            agreeing = [v.rater for v in verdicts if v.first_is_better == (0.5 if is_tie else float(better < worse))]
            yield Preference(
                prompt=(prompts or {}).get(rating.item_id, (Message("user", rating.prompt),)),
                chosen=text[better],
                rejected=text[worse],
                id=f"{rating.item_id}/{rating.rater}/{better}/{worse}",
                margin=rank[worse] - rank[better] if rating.choice == "ranking" else None,
                annotator=rating.rater,
                facts={
                    **_facts(rating.item_id, better, worse, agreeing, verdicts),
                    "choice": rating.choice,
                    **({"probability": "0.5", "tie": "true"} if is_tie else {}),
                },
            )


def joint_pairs(
    ratings: Sequence[Rating], prompts: Mapping[str, tuple[Message, ...]], found: PairReliability | None, *, ties: bool
) -> Iterator[Preference]:
    """One of all raters on the same two answers: by their reliabilities, or by counting verdicts where `found` is None."""
    shown = {rating.item_id: rating for rating in ratings}
    for (item, first, second), verdicts in _verdicts(ratings).items():
        if found is not None:
            first_is_better = round(found.probability[item, first, second], 4)
        else:
            often = Counter(verdict.first_is_better for verdict in verdicts).most_common()
            if len(often) > 1 and often[0][1] == often[1][1]:
                continue  # no verdict has most
            first_is_better = often[0][0]
        is_tie = first_is_better == 0.5
        if is_tie and not ties:
            continue
        sign = 1 if first_is_better >= 0.5 else -1
        better, worse = (first, second) if sign == 1 else (second, first)
        text = {answer.system: answer.text for answer in shown[item].answers}
        agreeing = [v.rater for v in verdicts if v.first_is_better == (0.5 if is_tie else float(sign == 1))]
        places = [sign * verdict.places for verdict in verdicts if verdict.places is not None]
        mean = sum(places) / len(places) if places else None
        facts = {**_facts(item, better, worse, agreeing, verdicts), "agreeing": ", ".join(agreeing)}
        facts |= {"mean_margin": f"{mean:.4g}"} if mean is not None else {}
        if found is not None or is_tie:
            facts["probability"] = f"{max(first_is_better, 1 - first_is_better):.4g}"
        if is_tie and (found is None or 2 * len(agreeing) > len(verdicts)):  # else they disagree, each way as much
            facts["tie"] = "true"
        yield Preference(
            prompt=prompts.get(item, (Message("user", shown[item].prompt),)),
            chosen=text[better],
            rejected=text[worse],
            id=f"{item}/{better}/{worse}",
            margin=None if mean is None else 0 if is_tie else max(1, round(mean)),
            facts=facts,
        )


def require_one_text(ratings: Sequence[Rating]) -> None:
    """A file made elsewhere may call two texts by one name: their verdicts are not about the same pair."""
    known: dict[str, tuple[str, dict[str, str]]] = {}
    for rating in ratings:
        prompt, texts = known.setdefault(rating.item_id, (rating.prompt, {}))
        for answer in rating.answers:
            if prompt != rating.prompt or texts.setdefault(answer.system, answer.text) != answer.text:
                by = f"the second by {rating.rater}, system `{answer.system}`"
                what = f"Two ratings of item `{rating.item_id}` are of different texts ({by})."
                raise UsageError(what, fix="Give every prompt with its answers an item id of its own.")


def prompts_of(candidates: Predictions, ratings: Sequence[Rating]) -> dict[str, tuple[Message, ...]]:
    """By item id, the messages of the prompts that were rated."""
    rows = {row["item_id"]: row for row in candidates.rows}
    for rating in ratings:
        row = rows.get(rating.item_id)
        if row is None or "messages" not in row or row["question"] != rating.prompt:
            what = f"{candidates.id} has no prompt for item `{rating.item_id}` that reads as it was rated."
            raise UsageError(what, fix="Give the candidates that these ratings are of (`mygpt align candidates`).")
    return {item: tuple(Message(_role(m["role"]), m["content"]) for m in row["messages"]) for item, row in rows.items()}


def _role(name: str) -> Role:
    return name  # type: ignore[return-value]  # as the candidates' own dataset had it


def _verdicts(ratings: Sequence[Rating]) -> dict[_Pair, list[_Verdict]]:
    """In the order in which pairs and raters come."""
    found: dict[_Pair, list[_Verdict]] = defaultdict(list)
    for rating in ratings:
        text = {answer.system: answer.text.strip() for answer in rating.answers}
        rank = dict(zip((answer.system for answer in rating.answers), rating.ranks, strict=False))
        for one, other, value in rating.comparisons:
            if text[one] == text[other]:
                continue
            _, first, second = pair = _pair(rating.item_id, one, other)
            places = rank[second] - rank[first] if rating.choice == "ranking" else None
            found[pair].append(_Verdict(rating.rater, value if first == one else 1 - value, places))
    return found


def _pair(item: str, one: str, other: str) -> _Pair:
    return (item, one, other) if one < other else (item, other, one)


def _facts(item: str, better: str, worse: str, agreeing: Sequence[str], verdicts: Sequence[_Verdict]) -> dict[str, str]:
    share = f"{len(agreeing) / len(verdicts):.4g}"
    return {"item_id": item, "chosen": better, "rejected": worse, "agreement": share, "annotators": str(len(verdicts))}
