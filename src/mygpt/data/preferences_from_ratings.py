"""What people ranked, as pairs to learn from: each pair of answers that a rating decides, the preferred one first.

A ranking of three answers without ties gives three pairs; a tie gives none; "the best" is preferred to each other answer, and nothing is
said of the others among themselves; "cannot judge" gives none. Every rater's pairs are kept, with who said it and by how many places
(`margin`: 1 between neighbours), also where raters disagree: what to make of that is for the one who learns from them.

Source: Ouyang et al. 2022, arXiv:2203.02155, section 3.4: a ranking of K answers as its K (K - 1) / 2 comparisons.
We differ: ties are skipped there, too, but answers of equal text by two systems are skipped as well, since nothing can be learnt of them.
"""

from collections.abc import Iterator, Sequence

from mygpt.artifacts.dataset import Dataset, Message, Preference, preference_facts, write_preferences
from mygpt.artifacts.ratings import Rating, Ratings
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run


class PreferencesFromRatingsConfig(Config):
    raters: tuple[str, ...] = ()  # whose ratings count; default: everybody's


@recipe
def preferences_from_ratings(config: PreferencesFromRatingsConfig, *, ratings: Ratings, run: Run) -> Dataset:
    """One split, `train`, in the order of the ratings."""
    unknown = set(config.raters) - {rating.rater for rating in ratings.rows}
    if unknown:
        known = ", ".join(sorted({rating.rater for rating in ratings.rows})) or "nobody"
        raise UsageError(f"{sorted(unknown)[0]} rated nothing in {ratings.id}.", fix=f"Raters are: {known}.")
    chosen = [rating for rating in ratings.rows if not config.raters or rating.rater in config.raters]
    rows = list(pairs(chosen))
    if not rows:
        raise UsageError(f"None of the {len(chosen)} ratings in {ratings.id} prefers one answer to another.", fix="Rate more items.")
    splits = {"train": rows}
    undecided = sum(not list(pairs([rating])) for rating in chosen)
    facts = {**preference_facts(splits), "ratings": len(chosen), "ratings_without_pair": undecided}
    return publish(Dataset, run, lambda folder: write_preferences(folder, splits), facts=facts)


def pairs(ratings: Sequence[Rating]) -> Iterator[Preference]:
    """In the order in which each rater saw the answers: first with second, first with third, second with third."""
    for rating in ratings:
        text = {answer.system: answer.text for answer in rating.answers}
        rank = dict(zip((answer.system for answer in rating.answers), rating.ranks, strict=False))
        for one, other, preference in rating.comparisons:
            if preference == 0.5 or text[one] == text[other]:
                continue
            better, worse = (one, other) if preference == 1 else (other, one)
            yield Preference(
                prompt=(Message("user", rating.prompt),),
                chosen=text[better],
                rejected=text[worse],
                id=f"{rating.item_id}/{rating.rater}/{better}/{worse}",
                margin=rank[worse] - rank[better] if rating.choice == "ranking" else None,
                annotator=rating.rater,
                facts={"item_id": rating.item_id, "chosen": better, "rejected": worse, "choice": rating.choice},
            )
