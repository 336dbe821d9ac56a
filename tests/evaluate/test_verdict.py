"""The verdict for made-up rows of every outcome. Rows repeat a pattern, so that each interval's side of zero can be told by hand."""

import pytest

from mygpt.evaluate.comparison import Comparison
from mygpt.evaluate.forgetting import Forgetting
from mygpt.evaluate.verdict import Verdict, decide
from mygpt.metrics.bootstrap import Interval

FLAT = [0.2, 0.3, 0.4, 0.3] * 10  # mean 0.30


def plus(amount: float, wobble: float = 0.0) -> list[float]:
    """FLAT moved by `amount`, give or take `wobble` on every other item: with wobble 0 the paired interval has no width."""
    return [f + amount + (wobble if i % 2 else -wobble) for i, f in enumerate(FLAT)]


def verdict(num_items: int = 40, passages: list[str] | None = None, forgetting: Forgetting | None = None, **arms: list[float]) -> Verdict:
    scores = {arm: values[:num_items] for arm, values in arms.items()}
    comparison = Comparison(scores, (passages or [str(i) for i in range(40)])[:num_items], num_resamples=2_000)
    return decide(comparison, None, forgetting, min_items=20, max_forgetting_bpb=0.05)


@pytest.mark.parametrize(
    ("arms", "outcome", "best", "cheapest", "tuning_needed"),
    [
        # tuned beats both, retrieval does not: tuning was needed
        (
            {"base_zero_shot": plus(0), "base_few_shot": plus(0.05), "base_retrieval": plus(0.1), "tuned": plus(0.3)},
            "learnt the content", "tuned", "tuned", True,
        ),
        # tuned learnt something, yet the base with retrieval is far ahead
        (
            {"base_zero_shot": plus(0), "base_few_shot": plus(0.05), "base_retrieval": plus(0.4), "tuned": plus(0.2)},
            "learnt the content", "base_retrieval", "base_retrieval", False,
        ),
        # the best is tuned with retrieval, by a hair that the interval does not hold above zero: retrieval keeps up
        (
            {"base_zero_shot": plus(0), "base_few_shot": plus(0), "base_retrieval": plus(0.4), "tuned": plus(0.2),
             "tuned_retrieval": plus(0.41, 0.2)},
            "learnt the content", "tuned_retrieval", "base_retrieval", False,
        ),
        # examples in the prompt do what tuning did
        (
            {"base_zero_shot": plus(0), "base_few_shot": plus(0.2), "tuned": plus(0.21, 0.2)},
            "learnt the style, not the content", "tuned", "base_few_shot", False,
        ),
        # examples in the prompt do better
        (
            {"base_zero_shot": plus(0), "base_few_shot": plus(0.3), "tuned": plus(0.2)},
            "learnt the style, not the content", "base_few_shot", "base_few_shot", False,
        ),
        ({"base_zero_shot": plus(0), "tuned": plus(0.2)}, "better than before", "tuned", "tuned", True),
        ({"base_zero_shot": plus(0), "tuned": plus(0.01, 0.2)}, "no measurable change", "tuned", "base_zero_shot", False),
        ({"base_zero_shot": plus(0.3), "tuned": FLAT}, "worse than before", "base_zero_shot", "base_zero_shot", False),
        ({"base_zero_shot": plus(0), "base_retrieval": plus(0.2)}, "not tuned", "base_retrieval", "base_retrieval", False),
        # equal arms: the cheapest is also the best
        ({"base_zero_shot": FLAT, "base_few_shot": FLAT, "tuned": FLAT}, "no measurable change", "base_zero_shot", "base_zero_shot", False),
    ],
)  # fmt: skip
def test_outcomes(arms: dict[str, list[float]], outcome: str, best: str, cheapest: str, tuning_needed: bool) -> None:
    made = verdict(**arms)
    assert (made.outcome, made.best, made.cheapest, made.tuning_needed) == (outcome, best, cheapest, tuning_needed)
    assert ("Tuning was not needed" in made.headline) == (not tuning_needed and outcome != "not tuned")


def test_words_of_the_style_verdict() -> None:
    made = verdict(base_zero_shot=plus(0), base_few_shot=plus(0.3), tuned=plus(0.2))
    assert made.headline == (
        "Tuning was not needed: the base model with examples in its prompt answers best. It learnt the style, not the content."
    )
    assert made.sentences[:2] == (
        "On 40 questions about the documents it studied, closed book, token F1 rose from 0.30 to 0.50: "
        "+0.20, 95\u202f% interval +0.20 to +0.20.",
        "Showing the base model a few examples gives 0.60, so the gain is in the manner of answering "
        "(tuned against that: −0.10, interval −0.10 to −0.10).",
    )


def test_too_few_items() -> None:
    made = verdict(num_items=19, base_zero_shot=plus(0), tuned=plus(0.3))
    assert (made.outcome, made.best, made.cheapest) == ("too few to decide", None, None)
    assert "19 held-out questions and 20 are needed" in made.text
    assert verdict(num_items=20, base_zero_shot=plus(0), tuned=plus(0.3)).outcome == "better than before"


def test_many_questions_on_few_passages_are_too_few() -> None:
    made = verdict(passages=[str(i % 9) for i in range(40)], base_zero_shot=plus(0), tuned=plus(0.3))
    assert made.outcome == "too few to decide"
    assert "only 9 passages" in made.text


@pytest.mark.parametrize(("num_passages", "said"), [(29, True), (30, False)])
def test_under_thirty_passages_the_interval_is_called_unreliable(num_passages: int, said: bool) -> None:
    passages = [str(i % num_passages) for i in range(40)]
    made = verdict(passages=passages, base_zero_shot=plus(0), tuned=plus(0.3))
    assert made.outcome == "better than before"
    sentence = "Interval unreliable: the questions come from 29 passages that it studied, fewer than 30."
    assert (sentence in made.sentences) == said


def test_no_questions_at_all() -> None:
    made = decide(None, None, None, min_items=20, max_forgetting_bpb=0.05)
    assert (made.outcome, made.forgetting) == ("too few to decide", "not measured")
    assert "There are 0 held-out questions" in made.text


def forgot(bpb: float, lost: int = 0, won: int = 0, p_value: float = 1.0, texts: int = 32) -> Forgetting:
    return Forgetting(1.0, 1.0 + bpb, Interval(bpb, bpb - 0.01, bpb + 0.01), 60, 40, 40 - lost + won, lost, won, p_value, texts)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (forgot(0.05), "within the limit"),
        (forgot(0.051), "beyond the limit"),
        (forgot(-0.2), "within the limit"),
        (forgot(0.0, lost=10, won=1, p_value=0.012), "beyond the limit"),  # 2 * (1 + 11) / 2**11
        (forgot(0.0, lost=1, won=10, p_value=0.012), "within the limit"),  # it learnt, rather
        (forgot(0.0, lost=5, won=1, p_value=0.219), "within the limit"),  # as chance would
    ],
)
def test_forgetting(measured: Forgetting, expected: str) -> None:
    made = verdict(forgetting=measured, base_zero_shot=plus(0), tuned=plus(0.3))
    assert made.forgetting == expected
    assert ("forgot too much" in made.headline) == (expected == "beyond the limit")
    assert "limit +0.05" in made.sentences[-1]


@pytest.mark.parametrize(
    ("measured", "begins", "unreliable"),
    [
        (forgot(0.03), "It forgot little: +0.030", False),
        (forgot(0.045), "It may have forgotten little: +0.045", False),  # the interval reaches 0.055
        (forgot(0.03, texts=26), "It may have forgotten little: +0.030", True),
    ],
)
def test_forgotten_little_is_said_only_where_the_interval_says_so(measured: Forgetting, begins: str, unreliable: bool) -> None:
    said = verdict(forgetting=measured, base_zero_shot=plus(0), tuned=plus(0.3)).sentences[-1]
    assert said.startswith(begins) and ("unreliable: 26 texts, fewer than 30" in said) == unreliable
