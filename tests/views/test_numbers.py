"""How numbers are written."""

import pytest

from mygpt.views.numbers import decimal, duration, grouped, percent, signed


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (signed(0.128), "+0.13"),
        (signed(-0.02), "−0.02"),
        (signed(-0.004), "0.00"),  # no sign on a zero
        (signed(0.0214, 3), "+0.021"),
        (decimal(None), "–"),
        (percent(0.256), "26 %"),
        (grouped(1234567), "1\u202f234\u202f567"),
        (duration(0.44), "0.4 s"),
        (duration(59.6), "1 min 00 s"),
        (duration(3725), "1 h 02 min"),
    ],
)
def test_by_hand(written: str, expected: str) -> None:
    assert written == expected
