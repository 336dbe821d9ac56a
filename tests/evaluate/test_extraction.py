"""Strict, flexible and numeric readings: the cases of lm-eval's gsm8k filters, worked by hand, and answers that cannot be read."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mygpt.evaluate.extraction import GSM8K_STRICT, cleaned_number, extract_label, extract_number, extract_text
from mygpt.evaluate.tasks.bbh import ANSWER_IS


@pytest.mark.parametrize(
    ("answer", "strict", "flexible", "number"),
    [
        ("9 * 2 = 18\n#### 18", "18", "18", 18),
        ("She makes $18 every day.", None, "18", 18),  # no mark: strict finds nothing
        ("#### 1,234.", "1234", "1234", 1234),
        ("#### 7\nQuestion: 3 + 4?", "7", "4", 4),  # flexible and numeric take the last number, strict the marked one
        ("The total is 18...", None, "18..", 18),  # one stop is taken off: the flexible text is not 18, the number is
        ("I do not know..", None, ".", None),  # the flexible pattern takes ".." for a number
        ("-5 degrees", None, "-5", -5),
        ("", None, None, None),
        ("No idea", None, None, None),
    ],
)
def test_numbers(answer: str, strict: str | None, flexible: str | None, number: int | None) -> None:
    read = extract_number(answer)
    assert (read.strict, read.flexible, read.number and read.number.value) == (strict, flexible, number)
    assert read.parsed == (number is not None)


@given(st.text(alphabet="0123456789.,$#- \nab", max_size=40))
def test_the_two_texts_are_what_the_patterns_of_lm_eval_give(answer: str) -> None:
    """gsm8k.yaml version 3: `regex`, the first match or the last one, then `regexes_to_ignore` in this order."""
    read = extract_number(answer)
    first = re.findall(r"#### (\-?[0-9\.\,]+)", answer)
    last = ["".join(groups) for groups in re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", answer)]

    def ignored(text: str) -> str:
        for pattern in (",", r"\$", r"(?s).*#### ", r"\.$"):
            text = re.sub(pattern, "", text)
        return text

    assert read.strict == (ignored(first[0]) if first else None)
    assert read.flexible == (ignored(last[-1].strip()) if last else None)


def test_cleaned_number() -> None:
    assert [cleaned_number(t) for t in ("1,000", "$5.", "so\n#### 12", "3.50")] == ["1000", "5", "12", "3.50"]
    assert re.search(GSM8K_STRICT, "#### -3")


@pytest.mark.parametrize(
    ("answer", "strict", "flexible"),
    [
        ("Yes", "Yes", "Yes"),
        ("yes.", "Yes", "Yes"),
        ("Yes, it does.", None, "Yes"),
        ("Yes and no", None, None),  # two labels: not read, rather than taken for the first
        ("Nothing of the kind", None, None),  # "No" inside a word is none
        ("", None, None),
    ],
)
def test_labels(answer: str, strict: str | None, flexible: str | None) -> None:
    read = extract_label(answer, ("No", "Yes"))
    assert (read.strict, read.flexible, read.parsed) == (strict, flexible, flexible is not None)


def test_a_label_inside_another_is_not_named() -> None:
    labels = ("not equivalent", "equivalent")
    assert extract_label("They are not equivalent.", labels).flexible == "not equivalent"
    assert extract_label("They are equivalent.", labels).flexible == "equivalent"
    assert extract_label("equivalent? no: not equivalent", labels).flexible is None


def test_letters_are_capitals_of_their_own() -> None:
    assert extract_label("It is a question of (B).", ("A", "B")).flexible == "B"
    assert extract_label("a cup, b flat", ("A", "B")).flexible is None
    assert extract_label("", ("A", "B")).parsed is False
    assert extract_label("(a).", ("A", "B")).strict == "A"


def test_text_by_pattern() -> None:
    read = extract_text("First, 2 + 2.\nSo the answer is (C).", ANSWER_IS)
    assert (read.strict, read.flexible) == ("(C)", "First, 2 + 2.\nSo the answer is (C).")
    assert extract_text("It is (C).", ANSWER_IS).strict is None
    assert extract_text(" Paris ").strict == extract_text(" Paris ").flexible == "Paris"
    assert not extract_text("  \n").parsed
