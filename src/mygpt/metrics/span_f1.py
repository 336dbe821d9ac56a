"""Entity spans: F1 of (label, start, end), right only when all three are.

P = right spans / spans named, R = right spans / spans to find, F1 = 2PR / (P + R), counted over all texts (micro), and for each label.

Source: Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 shared task", section 3 (exact matches).
We differ: spans are given as offsets (`spans_of_tags` reads them from BIO tags); a span named twice in one text counts once.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class EntitySpan(NamedTuple):
    label: str
    start: int
    end: int  # exclusive


@dataclass(frozen=True)
class SpanF1:
    num_right: int
    num_named: int
    num_gold: int

    @property
    def precision(self) -> float:
        return self.num_right / self.num_named if self.num_named else 0.0

    @property
    def recall(self) -> float:
        return self.num_right / self.num_gold if self.num_gold else 0.0

    @property
    def f1(self) -> float:
        return 2 * self.num_right / max(self.num_named + self.num_gold, 1)


def span_f1(predicted: Sequence[Collection[EntitySpan]], gold: Sequence[Collection[EntitySpan]]) -> SpanF1:
    """`predicted[i]` and `gold[i]` are the spans of one text."""
    _check(predicted, gold)
    return _count(predicted, gold)


def span_f1_by_label(predicted: Sequence[Collection[EntitySpan]], gold: Sequence[Collection[EntitySpan]]) -> dict[str, SpanF1]:
    _check(predicted, gold)
    labels = sorted({span.label for spans in (*predicted, *gold) for span in spans})
    only = {label: [[[s for s in spans if s.label == label] for spans in side] for side in (predicted, gold)] for label in labels}
    return {label: _count(named, right) for label, (named, right) in only.items()}


def spans_of_tags(tags: Sequence[str]) -> list[EntitySpan]:
    """`["B-PER", "I-PER", "O"]` -> `[EntitySpan("PER", 0, 2)]`, counted in words. An `I-X` that continues no X is passed over."""
    spans: list[EntitySpan] = []
    for place, tag in enumerate(tags):
        if tag.startswith("B-"):
            spans.append(EntitySpan(tag[2:], place, place + 1))
        elif tag.startswith("I-") and spans and spans[-1].label == tag[2:] and spans[-1].end == place:
            spans[-1] = spans[-1]._replace(end=place + 1)
    return spans


def _count(predicted: Sequence[Collection[EntitySpan]], gold: Sequence[Collection[EntitySpan]]) -> SpanF1:
    pairs = [(set(named), set(right)) for named, right in zip(predicted, gold, strict=True)]
    return SpanF1(sum(len(n & r) for n, r in pairs), sum(len(n) for n, _ in pairs), sum(len(r) for _, r in pairs))


def _check(predicted: Sequence[Collection[EntitySpan]], gold: Sequence[Collection[EntitySpan]]) -> None:
    if not gold or len(predicted) != len(gold):
        raise ValueError(f"span F1 needs the spans of as many texts on both sides, and some: {len(predicted)} and {len(gold)} texts")
    if not any(predicted) and not any(gold):
        raise ValueError(f"span F1 of {len(gold)} texts with 0 spans on either side is not defined")
    for place, spans in enumerate((*predicted, *gold)):
        for span in spans:
            if not 0 <= span.start < span.end:
                raise ValueError(f"text {place % len(gold)}: the span {span.label} from {span.start} to {span.end} holds nothing")
