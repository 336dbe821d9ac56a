"""Numbers at the end of answers, by hand; the first cases are those on which lm-eval's text comparison goes wrong."""

import json
from fractions import Fraction
from pathlib import Path

import pytest

from mygpt.metrics.numeric_answer import Number, last_number, numeric_match


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("so she has 18...", 18),
        ("18.00", 18),
        ("$1,000.00", 1000),
        ("-3/4", Fraction(-3, 4)),
        ("#### 1,234,567", 1_234_567),
        ("$-5", -5),
        ("-$5", -5),
        ("−7 degrees", -7),  # the sign of typographers
        ("10-3", 3),  # between digits it is no sign
        ("2 3/4 cups", Fraction(11, 4)),
        ("from .5.", Fraction(1, 2)),
        ("1.5e3", 1500),
        ("first 3, then 4", 4),
        ("1,2", 2),  # a list
        ("18kg of CO2", 18),  # CO2 is a word
        ("共18元", 18),
        ("١٨", 18),
        ("18 or 3/0", 18),  # nothing can be divided by 0
        ("12 and " + "9" * 5_000, 12),  # a model that repeats itself
    ],
)
def test_last_number(text: str, value: Fraction | int) -> None:
    assert last_number(text) == Number(Fraction(value))


@pytest.mark.parametrize("text", ["", "..", "I do not know.", "$", "-", "CO2", "3/0"])
def test_no_number(text: str) -> None:
    assert last_number(text) is None
    assert numeric_match(text, "18") is None


def test_per_cent_is_read_both_ways() -> None:
    assert last_number("about 12.5 %") == Number(Fraction(25, 2), percent=True)
    assert numeric_match("50%", "50") is numeric_match("50%", "0.5") is numeric_match("0.5", "50%") is True
    assert numeric_match("50%", "5000%") is numeric_match("50", "0.5") is False


def test_compared_as_numbers() -> None:
    assert numeric_match("The answer is 18.", "#### 18.0") is True
    assert numeric_match("The answer is 180.", "18") is False
    assert numeric_match("3.33", "10/3") is False
    assert numeric_match("3.33", "10/3", relative_tolerance=0.01) is True


def test_every_gsm8k_solution_holds_its_own_answer(shared_data: Path) -> None:
    """Of 1,319 reference solutions the last number is what stands after ####, read by Python's own int."""
    path = shared_data / "gsm8k_test.jsonl"
    if not path.is_file():
        pytest.skip(f"no GSM8K at {path}")
    answers = [json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(answers) == 1_319
    for answer in answers:
        assert last_number(answer) == Number(Fraction(int(answer.rpartition("####")[2].replace(",", "")))), answer


def test_a_reference_without_number_is_refused() -> None:
    with pytest.raises(ValueError, match="no number: 'none'"):
        numeric_match("18", "none")
