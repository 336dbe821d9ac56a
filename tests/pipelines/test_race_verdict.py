"""Which contender is recommended, on hand-made scores. Rows repeat a pattern, so that each interval's side of zero can be told by hand."""

from typing import Any

import pytest

from mygpt.evaluate.comparison import Comparison
from mygpt.evaluate.forgetting import Forgetting
from mygpt.metrics.bootstrap import Interval
from mygpt.pipelines.race_report import LABELS, cheapest_first
from mygpt.pipelines.race_verdict import Choice, choose, keeping_up

FLAT = [0.2, 0.3, 0.4, 0.3] * 10  # mean 0.30
ORDER = ("base", "few_shot", "retrieval", "prompt", "lora", "full")


def plus(amount: float, wobble: float = 0.0) -> list[float]:
    """FLAT moved by `amount`, give or take `wobble` on every other item: with wobble 0 the paired interval has no width."""
    return [f + amount + (wobble if i % 2 else -wobble) for i, f in enumerate(FLAT)]


def compared(passages: int = 40, items: int = 40, **scores: list[float]) -> Comparison:
    return Comparison({n: s[:items] for n, s in scores.items()}, [str(i % passages) for i in range(items)], 2_000, 0, ORDER)


def lost(bpb: float, right_to_wrong: int = 1, p_value: float = 1.0) -> Forgetting:
    interval = Interval(bpb, bpb - 0.01, bpb + 0.01)
    return Forgetting(1.0, 1.0 + bpb, interval, 96, 60, 60 - right_to_wrong, right_to_wrong, 0, p_value, 32)


def chosen(comparison: Comparison, **forgetting: Forgetting) -> Choice:
    return choose(comparison, labels=LABELS, forgetting=forgetting, min_items=20, max_forgetting_bpb=0.05)


@pytest.mark.parametrize(
    ("scores", "best", "recommended"),
    [
        # full is ahead of all by more than chance
        ({"few_shot": plus(0.1), "lora": plus(0.2), "full": plus(0.3)}, "full", "full"),
        # full leads LoRA by a hair that the interval does not hold above zero; prompt tuning is really behind
        ({"prompt": plus(0.1), "lora": plus(0.3), "full": plus(0.31, 0.2)}, "full", "lora"),
        # so does retrieval, which trains nothing
        ({"retrieval": plus(0.3), "lora": plus(0.3), "full": plus(0.31, 0.2)}, "full", "retrieval"),
        # nothing is better than the base by more than chance
        ({"few_shot": plus(0.01, 0.2), "lora": plus(0.02, 0.3)}, "lora", "base"),
        # equal scores: the cheapest is also the best
        ({"few_shot": plus(0.2), "lora": plus(0.2), "full": plus(0.2)}, "few_shot", "few_shot"),
        # training made it worse
        ({"lora": plus(-0.2), "full": plus(-0.25)}, "base", "base"),
    ],
)
def test_the_cheapest_that_keeps_up(scores: dict[str, list[float]], best: str, recommended: str) -> None:
    made = chosen(compared(base=FLAT, **scores))
    assert (made.outcome, made.best, made.recommended) == ("recommended", best, recommended)


def test_what_it_says_has_the_figures() -> None:
    """FLAT has mean 0.30 and prompt tuning 0.25 more on every item, so the interval has no width."""
    made = chosen(compared(base=FLAT, prompt=plus(0.25), full=plus(0.26, 0.2)), prompt=lost(0.012), full=lost(0.2))
    assert made.headline == "Take prompt tuning: it keeps up with full fine-tuning and costs less."
    assert made.sentences[0] == (
        "On 40 held-out questions about 40 passages, token F1 is 0.55 with prompt tuning and 0.30 with the base alone: "
        "+0.25, 95\u202f% interval +0.25 to +0.25."
    )
    assert made.sentences[1].startswith("The highest score is that of full fine-tuning (0.56); prompt tuning is cheaper")
    assert made.sentences[-1] == (
        "Forgotten, in bits per byte of general text (limit +0.05): prompt tuning +0.012, full fine-tuning +0.200 (too much)."
    )
    assert made.forgot_too_much == ("full",)


@pytest.mark.parametrize(
    ("compared_with", "why"),
    [
        ({"items": 19}, "There are 19 held-out questions and 20 are needed: add documents, then run it again."),
        ({"passages": 9}, "The 40 held-out questions come from only 9 passages; 10 are needed."),
    ],
)
def test_too_few_to_decide(compared_with: dict[str, Any], why: str) -> None:
    made = chosen(compared(base=FLAT, lora=plus(0.3), **compared_with), lora=lost(0.01))
    assert (made.outcome, made.best, made.recommended) == ("too few to decide", None, None)
    assert made.sentences[0] == why and "LoRA +0.010" in made.sentences[-1]


def test_between_ten_and_thirty_passages_it_says_unreliable() -> None:
    made = chosen(compared(base=FLAT, lora=plus(0.3), passages=20))
    assert made.recommended == "lora"
    assert "Interval unreliable: the questions come from 20 passages, fewer than 30." in made.sentences


def test_one_that_forgot_too_much_is_not_passed_over_in_silence() -> None:
    """LoRA is the cheapest that keeps up and forgot too much; full keeps up within the limit."""
    comparison = compared(base=FLAT, lora=plus(0.3), full=plus(0.31, 0.2))
    assert keeping_up(comparison) == ["lora", "full"]
    made = chosen(comparison, lora=lost(0.01, right_to_wrong=9, p_value=0.004), full=lost(0.02))
    assert made.headline == "Take LoRA: it keeps up with full fine-tuning and costs less, but it forgot too much."
    assert "Within the limit of forgetting, full fine-tuning (0.61) keeps up too." in made.sentences
    assert "LoRA +0.010 (too much: 9 general questions lost, 0 won)" in made.sentences[-1]
    made = chosen(comparison, lora=lost(0.2), full=lost(0.3))
    assert "All that keep up with the best forgot too much: mix general data in (`mygpt data replay`)." in made.sentences


def test_cheapest_first() -> None:
    """Untrained before trained; trained by weights, of equals in a fixed order."""
    weights = {"full": 900, "freeze": 900, "lora": 50, "prompt": 10}
    assert cheapest_first(("base", "full", "retrieval", "lora", "few_shot", "freeze", "prompt"), weights) == [
        "base", "few_shot", "retrieval", "prompt", "lora", "freeze", "full",
    ]  # fmt: skip
