"""Multiple choice by log-likelihood: the model chooses the option whose text it finds likeliest after the question.

    acc              argmax log P(choice | question)
    acc_norm         argmax log P(choice | question) / characters of the choice
    acc_bytes        argmax log P(choice | question) / UTF-8 bytes of the choice
    acc_mutual_info  argmax log P(choice | question) - log P(choice | no question)
    mc2              probability mass on the true options, of the mass on all (any number may be true)

The space between question and choice is scored, and not counted as a character. Of options exactly as likely the first is taken, as
`argmax` does, and `tied` says so: identical options, or a model that answers everything alike.

Source: Brown et al. 2020, "Language models are few-shot learners", arXiv:2005.14165, section 2.4 (length and unconditional
normalisation); mutual information: Holtzman et al. 2021, arXiv:2104.08315; mc2: Lin et al. 2021, "TruthfulQA", arXiv:2109.07958;
forms as in lm-eval, whose accuracies these equal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ChoiceScores:
    acc: float  # 1.0 or 0.0, as the others
    acc_norm: float
    acc_bytes: float
    acc_mutual_info: float | None  # None: not asked without the question
    chosen: int  # by acc
    tied: bool  # another option is exactly as likely as the chosen one
    probabilities: tuple[float, ...]  # of the options alone, they sum to 1: for calibration


def score_choices(
    logprobs: Sequence[float], choices: Sequence[str], gold: int, *, item_id: str, unconditional: Sequence[float] = ()
) -> ChoiceScores:
    """One item. `logprobs[i]` is the summed natural log-probability of `choices[i]`; `unconditional[i]` the same without the question."""
    _check(logprobs, len(choices), item_id)
    if not 0 <= gold < len(choices):
        raise ValueError(f"item {item_id}: the right choice is number {gold} of {len(choices)}")
    if empty := [i for i, choice in enumerate(choices) if not choice]:
        raise ValueError(f"item {item_id}: choice {empty[0]} of {len(choices)} has 0 characters")
    chosen = _argmax(logprobs)
    mutual = None
    if unconditional:
        _check(unconditional, len(choices), item_id)
        if math.inf in map(abs, unconditional):
            raise ValueError(f"item {item_id}: without the question a choice has the log-probability {min(unconditional)}")
        mutual = float(_argmax([with_q - without for with_q, without in zip(logprobs, unconditional, strict=True)]) == gold)
    return ChoiceScores(
        acc=float(chosen == gold),
        acc_norm=float(_argmax([p / len(c) for p, c in zip(logprobs, choices, strict=True)]) == gold),
        acc_bytes=float(_argmax([p / len(c.encode()) for p, c in zip(logprobs, choices, strict=True)]) == gold),
        acc_mutual_info=mutual,
        chosen=chosen,
        tied=list(logprobs).count(logprobs[chosen]) > 1,
        probabilities=tuple(_softmax(logprobs)),
    )


def mc2(logprobs: Sequence[float], is_true: Sequence[bool], *, item_id: str) -> float:
    """TruthfulQA's: 0 to 1."""
    _check(logprobs, len(is_true), item_id)
    if not any(is_true) or all(is_true):
        raise ValueError(f"item {item_id}: {sum(is_true)} of {len(is_true)} choices are true; some must be and some not")
    return sum(p for p, true in zip(_softmax(logprobs), is_true, strict=True) if true)


def _check(logprobs: Sequence[float], num_choices: int, item_id: str) -> None:
    if len(logprobs) != num_choices or num_choices < 2:
        raise ValueError(f"item {item_id}: {len(logprobs)} log-probabilities for {num_choices} choices; two or more of each")
    for place, logprob in enumerate(logprobs):
        if math.isnan(logprob) or logprob == math.inf:
            raise ValueError(f"item {item_id}: the log-probability of choice {place} is {logprob}")
    if max(logprobs) == -math.inf:
        raise ValueError(f"item {item_id}: all {num_choices} choices have the log-probability -inf")


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _softmax(logprobs: Sequence[float]) -> list[float]:
    highest = max(logprobs)  # taken off first: exp of a long text's log-probability is 0
    weights = [math.exp(logprob - highest) for logprob in logprobs]
    return [weight / sum(weights) for weight in weights]
