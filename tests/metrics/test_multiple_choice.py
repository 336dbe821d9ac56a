"""Multiple choice by hand."""

import math

import pytest

from mygpt.metrics.multiple_choice import mc2, score_choices

CHOICES = ["tea", "warm tea", "tées"]


def test_by_hand() -> None:
    """acc: -6 is highest. By characters -6/3, -8/8, -9/4: the second. By bytes -6/3, -8/8, -9/5. Less what they have without the
    question: -6 + 2, -8 + 3, -9 + 8: the third."""
    right = [score_choices([-6.0, -8.0, -9.0], CHOICES, gold, item_id="q1", unconditional=[-2.0, -3.0, -8.0]) for gold in range(3)]
    assert [s.acc for s in right] == [1.0, 0.0, 0.0]
    assert [s.acc_norm for s in right] == [0.0, 1.0, 0.0]
    assert [s.acc_bytes for s in right] == [0.0, 1.0, 0.0]
    assert [s.acc_mutual_info for s in right] == [0.0, 0.0, 1.0]
    total = 1 + math.exp(-2) + math.exp(-3)
    assert right[0].probabilities == pytest.approx((1 / total, math.exp(-2) / total, math.exp(-3) / total))


def test_characters_and_bytes_can_differ() -> None:
    """ "tées" has 4 characters and 5 bytes: -5/4 < -6/5 by characters, -5/5 > -6/5 by bytes."""
    found = score_choices([-6.0, -5.0], ["black", "tées"], 1, item_id="q1")
    assert (found.acc_norm, found.acc_bytes) == (0.0, 1.0)
    assert found.acc_mutual_info is None


def test_of_equals_the_first_is_taken_and_it_is_said() -> None:
    found = score_choices([-2.0, -1.0, -1.0], CHOICES, 2, item_id="q1")
    assert (found.chosen, found.tied, found.acc) == (1, True, 0.0)
    assert not score_choices([-2.0, -2.0, -1.0], CHOICES, 2, item_id="q1").tied


def test_an_impossible_choice_is_only_not_chosen() -> None:
    found = score_choices([-math.inf, -3.0], ["a", "b"], 1, item_id="q1")
    assert found.acc == 1.0
    assert found.probabilities == (0.0, 1.0)


def test_mc2_by_hand() -> None:
    """Probabilities .2, .1 (true) and .1: .3 / .4. Far down nothing changes, though exp(-1000) is 0."""
    logprobs = [math.log(0.2), math.log(0.1), math.log(0.1)]
    assert mc2(logprobs, [True, True, False], item_id="q1") == pytest.approx(0.75)
    assert mc2([p - 1_000 for p in logprobs], [True, True, False], item_id="q1") == pytest.approx(0.75)


def test_bad_input_names_the_item() -> None:
    with pytest.raises(ValueError, match="item q7: the log-probability of choice 1 is nan"):
        score_choices([-1.0, math.nan], ["a", "b"], 0, item_id="q7")
    with pytest.raises(ValueError, match="item q7: 2 log-probabilities for 3 choices"):
        score_choices([-1.0, -2.0], CHOICES, 0, item_id="q7")
    with pytest.raises(ValueError, match="item q7: 0 log-probabilities for 0 choices"):
        score_choices([], [], 0, item_id="q7")
    with pytest.raises(ValueError, match="item q7: the right choice is number 3 of 3"):
        score_choices([-1.0, -2.0, -3.0], CHOICES, 3, item_id="q7")
    with pytest.raises(ValueError, match="item q7: choice 1 of 2 has 0 characters"):
        score_choices([-1.0, -2.0], ["a", ""], 0, item_id="q7")
    with pytest.raises(ValueError, match="item q7: all 2 choices"):
        score_choices([-math.inf, -math.inf], ["a", "b"], 0, item_id="q7")
    with pytest.raises(ValueError, match="item q7: 2 of 2 choices are true"):
        mc2([-1.0, -2.0], [True, True], item_id="q7")
    with pytest.raises(ValueError, match="item q7: without the question"):
        score_choices([-1.0, -2.0], ["a", "b"], 0, item_id="q7", unconditional=[-1.0, -math.inf])
