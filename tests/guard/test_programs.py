"""The program in an answer, by hand."""

import pytest

from mygpt.guard.programs import program_in


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("Here it is:\n```python\ndef f():\n    return 1\n```\nThat is all.\n```\nother\n```", "def f():\n    return 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```py\nx = 1  ", "x = 1\n"),  # cut by the length of the answer
        ("x = 1\n\n", "x = 1\n"),
        ("  ```python\n  x\n  ```", "  x\n"),
        ("    return a + b\n", "    return a + b\n"),
        ("", "\n"),
        ("text with ``` inside a line", "text with ``` inside a line\n"),
    ],
)
def test_by_hand(answer: str, program: str) -> None:
    assert program_in(answer) == program
