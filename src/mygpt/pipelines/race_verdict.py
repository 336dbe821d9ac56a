"""What a race means: the cheapest contender that keeps up with the best, in words that someone without statistics can act on.

A contender keeps up when the paired 95 % interval of best - contender reaches down to zero. Cheapest first: nothing trained before
something trained; untrained, the base as it is, then with examples, then with retrieval; trained, the fewer weights the cheaper. Under
`min_items` questions, or too few passages behind them, no contender is named. What a contender forgot does not change the choice: it is
said, and where the limit was passed, so is the cheapest one that keeps up within it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mygpt.evaluate.comparison import MIN_PASSAGES, Comparison
from mygpt.evaluate.forgetting import Forgetting
from mygpt.metrics.bootstrap import FEWEST_ITEMS
from mygpt.views.numbers import signed

BASE = "base"
TOO_FEW = "too few to decide"


@dataclass(frozen=True)
class Choice:
    outcome: str  # "recommended", "too few to decide"
    headline: str
    sentences: tuple[str, ...]
    best: str | None  # a contender; None when there is too little to decide
    recommended: str | None  # the cheapest that keeps up with the best
    forgot_too_much: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join((self.headline, *self.sentences))


def choose(
    comparison: Comparison,
    *,
    labels: Mapping[str, str],
    forgetting: Mapping[str, Forgetting],
    min_items: int,
    max_forgetting_bpb: float,
) -> Choice:
    """`comparison.order` is cheapest first and begins with the base; `forgetting` is of the contenders whose weights were changed."""
    beyond = tuple(name for name, lost in forgetting.items() if lost.beyond(max_forgetting_bpb))
    forgot = _forgetting_sentences(forgetting, labels, max_forgetting_bpb)
    if not comparison.enough(min_items):
        why = _too_few_sentence(comparison, min_items)
        return Choice(TOO_FEW, "Too few questions to decide.", (why, *forgot), None, None, beyond)
    best, chosen = comparison.best, comparison.cheapest
    return Choice(
        outcome="recommended",
        headline=_headline(comparison, labels, forgot_too_much=chosen in beyond),
        sentences=(
            _gain_sentence(comparison, labels),
            *_choice_sentence(comparison, labels),
            *_unreliable_sentence(comparison),
            *_within_limit_sentence(comparison, labels, beyond),
            *forgot,
        ),
        best=best,
        recommended=chosen,
        forgot_too_much=beyond,
    )


def keeping_up(comparison: Comparison) -> list[str]:
    """All that are not significantly worse than the best, cheapest first."""
    return [arm for arm in comparison.arms if not comparison.difference(comparison.best, arm).above_zero]


def _headline(comparison: Comparison, labels: Mapping[str, str], *, forgot_too_much: bool) -> str:
    best, chosen = comparison.best, comparison.cheapest
    but = ", but it forgot too much" if forgot_too_much else ""
    if chosen == BASE:
        return "Nothing is needed: the base answers as well as the best." if best != BASE else "Nothing is needed: the base answers best."
    name = labels[chosen]
    return f"Take {name}: it answers best{but}." if chosen == best else f"Take {name}: it keeps up with {labels[best]} and costs less{but}."


def _gain_sentence(comparison: Comparison, labels: Mapping[str, str]) -> str:
    chosen, base = comparison.cheapest, comparison.mean(BASE)
    asked = f"On {comparison.num_items} held-out questions about {comparison.num_passages} passages"
    if chosen == BASE:
        return f"{asked}, the base has token F1 {base:.2f}."
    gain = comparison.difference(chosen, BASE)
    return (
        f"{asked}, token F1 is {comparison.mean(chosen):.2f} with {labels[chosen]} and {base:.2f} with the base alone: "
        f"{signed(gain.estimate)}, 95\u202f% interval {signed(gain.low)} to {signed(gain.high)}."
    )


def _choice_sentence(comparison: Comparison, labels: Mapping[str, str]) -> list[str]:
    best, chosen = comparison.best, comparison.cheapest
    if best == chosen:
        return [] if best == BASE else ["It is the best, and nothing cheaper keeps up with it."]
    behind = comparison.difference(best, chosen)
    return [
        f"The highest score is that of {labels[best]} ({comparison.mean(best):.2f}); {labels[chosen]} is cheaper and not significantly "
        f"worse (difference {signed(behind.estimate)}, interval {signed(behind.low)} to {signed(behind.high)})."
    ]


def _unreliable_sentence(comparison: Comparison) -> list[str]:
    if comparison.reliable:
        return []
    return [f"Interval unreliable: the questions come from {comparison.num_passages} passages, fewer than {FEWEST_ITEMS}."]


def _too_few_sentence(comparison: Comparison, min_items: int) -> str:
    items = comparison.num_items
    if items >= min_items:
        return f"The {items} held-out questions come from only {comparison.num_passages} passages; {MIN_PASSAGES} are needed."
    return f"There are {items} held-out questions and {min_items} are needed: add documents, then run it again."


def _within_limit_sentence(comparison: Comparison, labels: Mapping[str, str], beyond: tuple[str, ...]) -> list[str]:
    if comparison.cheapest not in beyond:
        return []
    kept = next((arm for arm in keeping_up(comparison) if arm not in beyond), None)
    if kept is None:
        return ["All that keep up with the best forgot too much: mix general data in (`mygpt data replay`)."]
    return [f"Within the limit of forgetting, {labels[kept]} ({comparison.mean(kept):.2f}) keeps up too."]


def _forgetting_sentences(forgetting: Mapping[str, Forgetting], labels: Mapping[str, str], max_bpb: float) -> list[str]:
    if not forgetting:
        return []
    told = ", ".join(
        f"{labels[name]} {signed(lost.bpb.estimate, 3)}{_why_too_much(lost, max_bpb)}{_doubt(lost)}" for name, lost in forgetting.items()
    )
    return [f"Forgotten, in bits per byte of general text (limit {signed(max_bpb)}): {told}."]


def _doubt(lost: Forgetting) -> str:
    return "" if lost.reliable else f" (interval unreliable: {lost.num_texts} texts)"


def _why_too_much(lost: Forgetting, max_bpb: float) -> str:
    if not lost.beyond(max_bpb):
        return ""
    if lost.bpb.estimate > max_bpb:
        return " (too much)"
    return f" (too much: {lost.right_to_wrong} general questions lost, {lost.wrong_to_right} won)"
