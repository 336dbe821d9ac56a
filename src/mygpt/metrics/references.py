"""Answers with one or more references each: the checks and the shape that BLEU and chrF share."""

from collections.abc import Sequence


def check_references(metric: str, answers: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not answers or len(answers) != len(references):
        raise ValueError(f"{metric} needs as many references as answers, and some: {len(answers)} answers, {len(references)} references")
    for place, some in enumerate(references):
        if isinstance(some, str):
            raise ValueError(f"{metric}: the references of answer {place} are one text; put it in a list: [{some[:40]!r}]")
        if not some:
            raise ValueError(f"{metric}: answer {place} of {len(answers)} has 0 references")


def as_streams(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """From a list for each answer to sacrebleu's form: first references, second references, ...; None where an answer has fewer."""
    most = max(map(len, references))
    return [[some[k] if k < len(some) else None for some in references] for k in range(most)]
