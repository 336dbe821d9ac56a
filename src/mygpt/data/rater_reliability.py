"""How far each of the people who rated can be trusted, from their ratings alone: facts for a manifest, and sentences for people.

    votes_of(ratings)            what each rating says of each pair of answers, texts that are equal aside
    rater_facts(votes, ...)      reliability with limits of each rater, Krippendorff's alpha, strengths of the systems by raters so weighed

A rater who judged no pair that somebody else judged has no reliability: nothing speaks for it or against it.

Source: `metrics/dawid_skene`, `metrics/crowd_bradley_terry`, `metrics/agreement`
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from mygpt.artifacts.ratings import Rating
from mygpt.metrics.agreement import interval, krippendorff_alpha
from mygpt.metrics.crowd_bradley_terry import crowd_bradley_terry
from mygpt.metrics.dawid_skene import PairReliability, Vote


def votes_of(ratings: Sequence[Rating]) -> list[Vote]:
    votes = []
    for rating in ratings:
        text = {answer.system: answer.text.strip() for answer in rating.answers}
        for one, other, preference in rating.comparisons:
            if text[one] != text[other]:
                votes.append(Vote(rating.item_id, one, other, preference, rating.rater))
    return votes


def rater_facts(votes: Sequence[Vote], found: PairReliability) -> dict[str, Any]:
    said: dict[tuple[str, str, str], dict[str, float]] = defaultdict(dict)
    for vote in votes:
        first, second = sorted((vote.first, vote.second))
        said[vote.group, first, second][vote.rater] = vote.outcome if first == vote.first else 1 - vote.outcome
    facts: dict[str, Any] = {}
    for rater, limits in found.raters.items():
        own = [(by[rater], len(by)) for by in said.values() if rater in by]
        shared = sum(others > 1 for _, others in own)
        facts[rater] = {"pairs": len(own), "shared_pairs": shared, "ties": sum(outcome == 0.5 for outcome, _ in own)}
        known = {"reliability": limits.estimate, "low": limits.low, "high": limits.high}
        facts[rater] |= {key: round(value, 4) if shared else None for key, value in known.items()}
    alpha = _alpha(list(said.values()), list(found.raters))
    strengths = _strengths(votes)
    told = [_sentence(rater, own) for rater, own in facts.items()]
    told += [f"Krippendorff's alpha of their verdicts: {alpha:.2f} (1: all agree; 0: as by chance)."] if alpha is not None else []
    rounded = None if alpha is None else round(alpha, 4)
    return {"annotators": facts, "krippendorff_alpha": rounded, "strengths": strengths, "sentences": told}


def _alpha(said: Sequence[dict[str, float]], raters: Sequence[str]) -> float | None:
    """Every pair both ways round, since neither answer is the first; a tie lies half way. None where nobody judged what another did."""
    if len(raters) < 2 or not any(len(by) > 1 for by in said):
        return None
    rows = [[by.get(rater) for by in said] + [1 - by[rater] if rater in by else None for by in said] for rater in raters]
    return krippendorff_alpha(rows, distance=interval)


def _strengths(votes: Sequence[Vote]) -> dict[str, float] | None:
    """Of the systems, in logits, strongest first; None where they were never all compared."""
    try:
        return {name: round(strength, 4) for name, strength in crowd_bradley_terry(votes).strengths.items()}
    except ValueError:
        return None


def _sentence(rater: str, own: dict[str, Any]) -> str:
    if own["reliability"] is None:
        return f"{rater}: {own['pairs']} pairs, none of which anybody else judged: nothing is known of how reliable they are."
    what = f"{rater}: right on {own['reliability']:.2f} of the pairs decided ({own['low']:.2f} to {own['high']:.2f}), {own['pairs']} pairs"
    if own["high"] < 0.5:
        return f"{what}. Says the opposite of the others: ask whether the places were read the wrong way round."
    return f"{what}. No better than a coin, as far as can be told." if own["low"] <= 0.5 else f"{what}."
