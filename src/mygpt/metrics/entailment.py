"""Entailment: if one text is true, is the other? Asked in both directions, since "an oak fell" entails "a tree fell" and not the reverse.

    relation           of two texts: the same, one says more, they contradict each other, neither
    mutual_entailment  min of the two probabilities: how sure the model is that both say the same, 0 to 1
    relation_counts    over many pairs

Source: Dagan et al. 2006, "The PASCAL recognising textual entailment challenge"; three labels: Bowman et al. 2015, arXiv:1508.05326;
paraphrase as entailment in both directions: Androutsopoulos and Malakasiotis 2010, "A survey of paraphrasing and textual entailment
methods", section 1.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

NliLabel = Literal["entailment", "neutral", "contradiction"]
Relation = Literal["same", "says more", "says less", "contradicts", "neither"]
RELATIONS: tuple[Relation, ...] = ("same", "says more", "says less", "contradicts", "neither")
_SUM = 1e-3


@dataclass(frozen=True)
class Nli:
    """Of a premise and a hypothesis: three probabilities that sum to 1."""

    entailment: float
    neutral: float
    contradiction: float

    def __post_init__(self) -> None:
        values = (self.entailment, self.neutral, self.contradiction)
        if not all(0 <= value <= 1 for value in values) or abs(math.fsum(values) - 1) > _SUM:  # NaN is off too
            raise ValueError(f"entailment, neutral and contradiction are {values}, not probabilities that sum to 1")

    @property
    def label(self) -> NliLabel:
        """The likeliest; of equals, the one that claims least: neutral, then contradiction."""
        ranked: tuple[tuple[float, NliLabel], ...] = (
            (self.neutral, "neutral"),
            (self.contradiction, "contradiction"),
            (self.entailment, "entailment"),
        )
        return max(ranked, key=lambda pair: pair[0])[1]


def relation(forward: Nli, backward: Nli) -> Relation:
    """`forward`: the answer as premise, the reference as hypothesis. A contradiction in either direction is one."""
    if "contradiction" in (forward.label, backward.label):
        return "contradicts"
    entails = (forward.label == "entailment", backward.label == "entailment")
    names: dict[tuple[bool, bool], Relation] = {(True, True): "same", (True, False): "says more", (False, True): "says less"}
    return names.get(entails, "neither")


def mutual_entailment(forward: Nli, backward: Nli) -> float:
    return min(forward.entailment, backward.entailment)


def relation_counts(relations: Iterable[Relation]) -> dict[str, int]:
    counted = Counter(relations)
    return {name: counted[name] for name in RELATIONS}
