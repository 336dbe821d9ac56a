"""Classification: F1 of each class, their plain mean (macro), F1 over all decisions (micro), and who is taken for whom.

F1 of a class = 2 TP / (2 TP + FP + FN); macro F1 = mean over classes; micro F1 = the same formula with TP, FP, FN summed over classes.
An answer that names no class (None) misses its class and lands in none: it lowers recall, and micro F1 stays above plain accuracy.

Source: van Rijsbergen 1979, "Information retrieval", chapter 7 (F); macro and micro: Yang and Liu 1999, "A re-examination of text
categorization methods", section 4. Of the two things called macro F1 (Opitz and Burst 2019, arXiv:1911.03347) it is the mean of F1s.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Classification:
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]  # row: the right class; column: the class named, and last: none named
    f1: dict[str, float]  # of each class that occurs on either side
    macro_f1: float
    micro_f1: float
    accuracy: float  # an answer without a class is wrong
    num_unparsed: int


def classification(predicted: Sequence[str | None], gold: Sequence[str], *, labels: Sequence[str] = ()) -> Classification:
    """`labels` fixes the order, and refuses others; without it they are what occurs, sorted."""
    if not gold or len(predicted) != len(gold):
        raise ValueError(f"F1 needs as many predictions as right classes, and some: {len(predicted)} and {len(gold)}")
    occurring = set(gold) | {name for name in predicted if name is not None}
    known = tuple(labels) or tuple(sorted(occurring))
    if unknown := sorted(occurring - set(known)):
        raise ValueError(f"{len(unknown)} classes are not among the {len(known)} labels: {', '.join(unknown[:5])}. Pass None for no class.")
    place: dict[str | None, int] = {label: i for i, label in enumerate(known)}
    place[None] = len(known)
    confusion = [[0] * (len(known) + 1) for _ in known]
    for named, right in zip(predicted, gold, strict=True):
        confusion[place[right]][place[named]] += 1
    hits = [confusion[i][i] for i in range(len(known))]
    named_L = [sum(row[i] for row in confusion) for i in range(len(known))]
    right_L = [sum(row) for row in confusion]
    f1 = {label: 2 * hit / (named + right) for label, hit, named, right in zip(known, hits, named_L, right_L, strict=True) if named + right}
    return Classification(
        labels=known,
        confusion=tuple(map(tuple, confusion)),
        f1=f1,
        macro_f1=sum(f1.values()) / len(f1),
        micro_f1=2 * sum(hits) / (sum(named_L) + sum(right_L)),
        accuracy=sum(hits) / len(gold),
        num_unparsed=sum(row[-1] for row in confusion),
    )


def macro_f1(predicted: Sequence[str | None], gold: Sequence[str]) -> float:
    return classification(predicted, gold).macro_f1
