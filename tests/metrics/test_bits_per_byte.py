"""Bits per byte by hand."""

import math

import pytest

from mygpt.metrics.bits_per_byte import bits_per_byte


def test_uniform_over_256_bytes_is_8_bits() -> None:
    assert bits_per_byte([10 * math.log(1 / 256), 3 * math.log(1 / 256)], [10, 3]) == pytest.approx(8.0)


def test_pieces_weigh_by_their_bytes() -> None:
    """1 byte at 1 bit and 3 bytes at 2 bits: (1 + 6) / 4, not the mean of 1 and 2."""
    assert bits_per_byte([-1 * math.log(2), -6 * math.log(2)], [1, 3]) == pytest.approx(1.75)


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        bits_per_byte([], [])


def test_bytes_of_another_number_of_pieces_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and 1"):
        bits_per_byte([-1.0, -2.0], [3])
