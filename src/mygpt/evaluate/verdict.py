"""The verdict: what the figures mean, in words that someone without statistics can act on.

    too few to decide                    under `min_items` questions (or too few passages behind them): no arm is named
    not tuned                            there is no tuned model; the other arms are compared
    learnt the content                   tuned beats the base, and the base with examples in its prompt
    learnt the style, not the content    tuned beats the base, but examples in the prompt do as well
    better than before                   tuned beats the base; examples in the prompt were not tried
    no measurable change                 the interval of tuned - base holds zero
    worse than before                    the whole interval is below zero

"Beats" means that the paired 95 % interval of the difference in token F1 lies above zero. Whatever was learnt, the cheapest arm that
keeps up with the best one is named, even when tuning was not needed for it. Under 30 passages it is said that intervals are unreliable.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mygpt.evaluate.comparison import MIN_PASSAGES, TUNED_ARMS, Comparison
from mygpt.evaluate.forgetting import Forgetting
from mygpt.metrics.bootstrap import FEWEST_ITEMS, Interval
from mygpt.views.numbers import signed

LABELS: Mapping[str, str] = {
    "base_zero_shot": "base",
    "base_few_shot": "base + examples",
    "base_retrieval": "base + retrieval",
    "tuned": "tuned",
    "tuned_retrieval": "tuned + retrieval",
}
_IN_WORDS = {
    "base_zero_shot": "the base model",
    "base_few_shot": "the base model with examples in its prompt",
    "base_retrieval": "the base model with retrieval",
    "tuned": "the tuned model",
    "tuned_retrieval": "the tuned model with retrieval",
}


@dataclass(frozen=True)
class Verdict:
    outcome: str  # one of the phrases above
    headline: str
    sentences: tuple[str, ...]
    best: str | None  # an arm; None when there is too little to decide
    cheapest: str | None  # the cheapest arm that is not significantly worse than the best
    tuning_needed: bool
    forgetting: str  # "within the limit", "beyond the limit", "not measured"

    @property
    def text(self) -> str:
        return " ".join((self.headline, *self.sentences))


def decide(
    knowledge: Comparison | None,
    generalisation: Comparison | None,
    forgetting: Forgetting | None,
    *,
    min_items: int,
    max_forgetting_bpb: float,
) -> Verdict:
    """On `knowledge`; what `generalisation` shows is said beside it."""
    forgot = "not measured" if forgetting is None else "beyond the limit" if forgetting.beyond(max_forgetting_bpb) else "within the limit"
    aside = _forgetting_sentence(forgetting, forgot, max_forgetting_bpb)
    if knowledge is None or not knowledge.enough(min_items):
        why = _too_few_sentence(knowledge, min_items)
        return Verdict("too few to decide", "Too few questions to decide.", (why, *aside), None, None, False, forgot)
    best, cheapest = knowledge.best, knowledge.cheapest
    return Verdict(
        outcome=_outcome(knowledge),
        headline=_headline(knowledge, _outcome(knowledge), forgot),
        sentences=(
            *_gain_sentences(knowledge, generalisation),
            *_choice_sentence(knowledge),
            *_unreliable_sentence(knowledge, generalisation),
            *aside,
        ),
        best=best,
        cheapest=cheapest,
        tuning_needed=cheapest in TUNED_ARMS,
        forgetting=forgot,
    )


def _outcome(comparison: Comparison) -> str:
    if "tuned" not in comparison.arms or "base_zero_shot" not in comparison.arms:
        return "not tuned"
    gain = comparison.difference("tuned", "base_zero_shot")
    if gain.below_zero:
        return "worse than before"
    if not gain.above_zero:
        return "no measurable change"
    if "base_few_shot" not in comparison.arms:
        return "better than before"
    return "learnt the content" if comparison.difference("tuned", "base_few_shot").above_zero else "learnt the style, not the content"


def _headline(comparison: Comparison, outcome: str, forgot: str) -> str:
    best, cheapest = _IN_WORDS[comparison.best], _IN_WORDS[comparison.cheapest]
    does = "answers best" if best == cheapest else f"answers as well as {best}"
    if outcome == "not tuned":
        return f"Not tuned. {_capital(cheapest)} {does}."
    learnt = " It learnt the style, not the content." if outcome == "learnt the style, not the content" else ""
    if comparison.cheapest in TUNED_ARMS:
        but = ", but it forgot too much" if forgot == "beyond the limit" else ""
        return f"Tuning paid off: {cheapest} {does}{but}.{learnt}"
    return f"Tuning was not needed: {cheapest} {does}.{learnt}"


def _gain_sentences(knowledge: Comparison, generalisation: Comparison | None) -> list[str]:
    if "tuned" not in knowledge.arms or "base_zero_shot" not in knowledge.arms:
        return []
    gain = knowledge.difference("tuned", "base_zero_shot")
    base, tuned = knowledge.mean("base_zero_shot"), knowledge.mean("tuned")
    verb = "rose" if gain.above_zero else "fell" if gain.below_zero else "did not measurably change: it went"
    sentences = [
        f"On {knowledge.num_items} questions about the documents it studied, closed book, token F1 {verb} from {base:.2f} to {tuned:.2f}: "
        f"{signed(gain.estimate)}, 95\u202f% interval {signed(gain.low)} to {signed(gain.high)}."
    ]
    if "base_few_shot" in knowledge.arms:
        against = knowledge.difference("tuned", "base_few_shot")
        shown = f"Showing the base model a few examples gives {knowledge.mean('base_few_shot'):.2f}"
        if gain.above_zero and not against.above_zero:
            shown += ", so the gain is in the manner of answering"
        sentences.append(f"{shown} (tuned against that: {said(against)}).")
    if generalisation is not None and {"tuned", "base_zero_shot"} <= set(generalisation.arms):
        elsewhere = generalisation.difference("tuned", "base_zero_shot")
        moved = "it gained" if elsewhere.above_zero else "it lost" if elsewhere.below_zero else "no change shows"
        sentences.append(f"On {generalisation.num_items} questions about documents it never saw, {moved}: {said(elsewhere)}.")
    return sentences


def _choice_sentence(comparison: Comparison) -> list[str]:
    best, cheapest = comparison.best, comparison.cheapest
    if best == cheapest:
        return [f"{_capital(_IN_WORDS[best])} is the best ({comparison.mean(best):.2f}), and nothing cheaper keeps up with it."]
    behind = said(comparison.difference(best, cheapest))
    return [
        f"{_capital(_IN_WORDS[best])} has the highest score ({comparison.mean(best):.2f}); {_IN_WORDS[cheapest]} "
        f"({comparison.mean(cheapest):.2f}) is cheaper and not significantly worse (difference {behind})."
    ]


def _unreliable_sentence(knowledge: Comparison, generalisation: Comparison | None) -> list[str]:
    few = [
        f"{comparison.num_passages} passages {where}"
        for comparison, where in ((knowledge, "that it studied"), (generalisation, "that it never saw"))
        if comparison is not None and not comparison.reliable
    ]
    return [f"Interval unreliable: the questions come from {' and '.join(few)}, fewer than {FEWEST_ITEMS}."] if few else []


def _too_few_sentence(comparison: Comparison | None, min_items: int) -> str:
    num_items = comparison.num_items if comparison else 0
    if comparison is not None and num_items >= min_items:
        return f"The {num_items} held-out questions come from only {comparison.num_passages} passages; {MIN_PASSAGES} are needed."
    return f"There are {num_items} held-out questions and {min_items} are needed: add documents, then run it again."


def _forgetting_sentence(forgetting: Forgetting | None, verdict: str, max_bpb: float) -> list[str]:
    if forgetting is None:
        return []
    bpb, sure = forgetting.bpb, forgetting.reliable and forgetting.bpb.high <= max_bpb
    little = "It forgot little" if sure else "It may have forgotten little"
    begin = "Beware, it forgot too much" if verdict == "beyond the limit" else little
    few = "" if forgetting.reliable else f", unreliable: {forgetting.num_texts} texts, fewer than {FEWEST_ITEMS}"
    return [
        f"{begin}: {signed(bpb.estimate, 3)} bits per byte on general text (limit {signed(max_bpb)}, interval {signed(bpb.low, 3)} to "
        f"{signed(bpb.high, 3)}{few}); of {forgetting.num_items} "
        f"general questions {forgetting.right_to_wrong} went from right to wrong and {forgetting.wrong_to_right} from wrong to right."
    ]


def said(interval: Interval) -> str:
    return f"{signed(interval.estimate)}, interval {signed(interval.low)} to {signed(interval.high)}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
