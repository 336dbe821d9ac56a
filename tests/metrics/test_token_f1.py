"""Token F1 worked by hand, as SQuAD's script defines it."""

import pytest

from mygpt.metrics.token_f1 import token_f1


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("The cat sat.", "a cat sat", 1.0),  # articles, case and punctuation are set aside
        ("five seconds", "after five seconds", 0.8),  # 2 shared; P = 2/2, R = 2/3: 2*2/(2+3)
        ("no no no", "no way", 0.4),  # "no" counts once: 2*1/(3+2)
        ("blue", "red", 0.0),
        ("", "", 1.0),  # SQuAD 2.0: nothing asked for, nothing said
        ("", "red", 0.0),
        ("the", "red", 0.0),  # only an article: no words left
        ("well-known", "well known", 0.0),  # SQuAD removes the hyphen: "wellknown"
        ("北京大学", "北京", 2 * 2 / (4 + 2)),  # by character: 2 shared
    ],
)
def test_by_hand(answer: str, reference: str, expected: float) -> None:
    assert token_f1(answer, reference) == pytest.approx(expected)
    assert token_f1(reference, answer) == pytest.approx(expected)  # F1 is symmetrical
