"""The learning rate, by hand."""

import pytest

from mygpt.training.schedules import linear, warmup_cosine


def factors(num_steps: int, warmup_share: float, final_share: float) -> list[float]:
    return [warmup_cosine(s, num_steps=num_steps, warmup_share=warmup_share, final_share=final_share) for s in range(num_steps)]


def test_ten_steps_by_hand() -> None:
    """Two of ten warm up: 1/2, 2/2. The other eight fall: step 2 + k stands at 0.1 + 0.9 (1 + cos(k pi / 8)) / 2."""
    found = factors(10, 0.2, 0.1)
    assert found[:3] == [0.5, 1.0, 1.0]
    assert found[4] == pytest.approx(0.1 + 0.9 * (1 + 0.7071067811865476) / 2)  # cos(pi / 4)
    assert found[6] == pytest.approx(0.55)  # cos(pi / 2) = 0
    assert found[9] == pytest.approx(0.1 + 0.9 * (1 - 0.9238795325112867) / 2)  # cos(7 pi / 8)
    assert found[2:] == sorted(found[2:], reverse=True)


def test_edges() -> None:
    assert factors(1, 0.1, 0.1) == [1.0]  # a single step moves at full rate
    assert factors(4, 0.0, 0.0)[0] == 1.0
    assert factors(4, 1.0, 0.0) == [0.25, 0.5, 0.75, 1.0]
    assert factors(5, 0.2, 1.0) == [1.0] * 5  # no decay
    assert all(0 < f <= 1 for f in factors(1000, 0.03, 0.0))


def test_linear_by_hand() -> None:
    """Without warm-up the first step is at the top and the last of four a quarter above the end: 1 - 0.8 k / 4."""
    assert [linear(s, num_steps=4, warmup_share=0.0, final_share=0.2) for s in range(4)] == pytest.approx([1.0, 0.8, 0.6, 0.4])
    assert [linear(s, num_steps=4, warmup_share=0.5, final_share=0.0) for s in range(4)] == [0.5, 1.0, 1.0, 0.5]
    assert [linear(s, num_steps=3, warmup_share=0.0, final_share=1.0) for s in range(3)] == [1.0] * 3
    assert linear(0, num_steps=1, warmup_share=0.0, final_share=0.0) == 1.0
