"""F1 of classes worked by hand."""

import pytest

from mygpt.metrics.macro_f1 import classification, macro_f1

GOLD = ["cat", "cat", "cat", "cat", "dog", "dog", "hen"]
NAMED = ["cat", "cat", "cat", "dog", "dog", "cat", "dog"]


def test_by_hand() -> None:
    """cat: TP 3, FP 1, FN 1; dog: TP 1, FP 2, FN 1; hen: TP 0, FN 1."""
    found = classification(NAMED, GOLD)
    assert found.labels == ("cat", "dog", "hen")
    assert found.confusion == ((3, 1, 0, 0), (1, 1, 0, 0), (0, 1, 0, 0))
    assert found.f1 == pytest.approx({"cat": 6 / 8, "dog": 2 / 5, "hen": 0.0})
    assert found.macro_f1 == macro_f1(NAMED, GOLD) == pytest.approx((6 / 8 + 2 / 5 + 0) / 3)
    assert found.micro_f1 == found.accuracy == pytest.approx(4 / 7)  # one class named for each: the two are the same


def test_an_answer_without_a_class_is_counted_and_lands_in_none() -> None:
    """Four right of five named of six: P = 4/5, R = 4/6, so micro F1 = 8/11 while accuracy is 4/6."""
    found = classification(["a", "a", None, "b", "b", "a"], ["a", "a", "a", "b", "b", "b"])
    assert found.num_unparsed == 1
    assert found.confusion == ((2, 0, 1), (1, 2, 0))
    assert found.micro_f1 == pytest.approx(8 / 11)
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.f1 == pytest.approx({"a": 4 / 6, "b": 4 / 5})


def test_always_the_largest_class_is_right_often_and_has_a_low_macro_f1() -> None:
    found = classification(["no"] * 100, ["no"] * 95 + ["yes"] * 5)
    assert found.accuracy == 0.95
    assert found.macro_f1 == pytest.approx((2 * 95 / 195) / 2)


def test_a_class_that_occurs_nowhere_is_not_averaged_in() -> None:
    assert classification(["a", "b"], ["a", "b"], labels=["b", "a", "c"]).macro_f1 == 1.0


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="1 and 2"):
        classification(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="0 and 0"):
        macro_f1([], [])
    with pytest.raises(ValueError, match="1 classes are not among the 2 labels: Cat"):
        classification(["Cat"], ["cat"], labels=["cat", "dog"])
