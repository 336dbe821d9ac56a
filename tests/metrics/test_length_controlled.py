"""The length-controlled win rate: against SciPy's minimiser, on data whose coefficients are known, and how often its interval is right."""

import math

import numpy as np
import pytest

from mygpt.metrics.length_controlled import L2, length_controlled_win_rate


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_known_coefficients_are_found() -> None:
    """Preferences that are exactly the model's: b0 = 0.4, b1 = 1.2. Against a thousand items the penalty of 0.01 is next to nothing."""
    differences = np.random.default_rng(1).normal(80, 200, 1_000)
    preferences = sigmoid(0.4 + 1.2 * np.tanh(differences / differences.std()))
    found = length_controlled_win_rate(preferences.tolist(), differences.tolist(), num_resamples=200)
    assert (found.intercept, found.slope) == pytest.approx((0.4, 1.2), abs=2e-4)
    assert found.scale == pytest.approx(differences.std())
    assert found.win_rate.estimate == pytest.approx(1 / (1 + math.exp(-0.4)), abs=1e-4)
    assert found.raw == pytest.approx(preferences.mean()) and found.raw > found.win_rate.estimate + 0.04
    assert found.win_rate.low <= found.win_rate.estimate <= found.win_rate.high


def test_is_the_minimum_that_scipy_finds() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(2)
    for num, shift in ((12, 0.0), (60, 1.5), (200, -3.0)):
        differences, preferences = rng.normal(0, 50, num), (rng.random(num) < sigmoid(np.full(num, shift))).astype(float)
        x = np.tanh(differences / differences.std())

        def loss(b: np.ndarray, x: np.ndarray = x, y: np.ndarray = preferences) -> float:
            z = b[0] + b[1] * x
            return float((np.logaddexp(0, z) - y * z).sum() + L2 / 2 * (b**2).sum())

        theirs = optimize.minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-9}).x
        ours = length_controlled_win_rate(preferences.tolist(), differences.tolist(), num_resamples=1)
        assert (ours.intercept, ours.slope) == pytest.approx(tuple(theirs), abs=1e-4)


def test_a_judge_that_only_likes_length_gives_one_half() -> None:
    """The first system writes more on average and wins three in four; at equal length it wins nothing."""
    rng = np.random.default_rng(3)
    differences = rng.normal(120, 150, 400)
    preferences = (rng.random(400) < sigmoid(3 * np.tanh(differences / 150))).astype(float)
    found = length_controlled_win_rate(preferences.tolist(), differences.tolist(), num_resamples=400)
    assert found.raw > 0.7 and found.slope > 2
    assert found.win_rate.estimate == pytest.approx(0.5, abs=0.08)
    assert found.win_rate.low < 0.5 < found.win_rate.high


def test_without_differences_of_length_it_is_the_win_rate() -> None:
    """Nothing to control: sigmoid(b0) is the mean, but for the penalty. Three of four, n = 40: 10 * 0.01 / (40 * 0.75 * 0.25) in logits."""
    preferences = [1.0, 1.0, 1.0, 0.0] * 10
    for differences in ([0.0] * 40, [7.0] * 40):
        found = length_controlled_win_rate(preferences, differences, num_resamples=50)
        assert (found.scale, found.slope) == (0.0, 0.0)
        assert found.win_rate.estimate == pytest.approx(0.75, abs=5e-4)


def test_all_won_stays_finite() -> None:
    """b0 solves 20 * (1 - sigmoid(b0)) = 0.01 * b0: 5.80; and every resample is all won as well."""
    found = length_controlled_win_rate([1.0] * 20, [0.0] * 20, num_resamples=50)
    assert 20 * (1 - found.win_rate.estimate) == pytest.approx(L2 * found.intercept, rel=1e-6)
    assert found.win_rate.low == pytest.approx(found.win_rate.high) and 0.99 < found.win_rate.low < 1


def test_answers_to_one_prompt_count_as_one_draw() -> None:
    rng = np.random.default_rng(4)
    preferences = np.repeat((rng.random(40) < 0.6).astype(float), 5)
    differences = np.repeat(rng.normal(0, 100, 40), 5)
    prompts = [str(i // 5) for i in range(200)]
    alone = length_controlled_win_rate(preferences.tolist(), differences.tolist(), num_resamples=600).win_rate
    together = length_controlled_win_rate(preferences.tolist(), differences.tolist(), clusters=prompts, num_resamples=600).win_rate
    assert together.estimate == alone.estimate
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(math.sqrt(5), rel=0.25)


def test_coverage() -> None:
    """Of 200 samples of 100 items the interval holds the true sigmoid(0.3) in about 95 %."""
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        differences = rng.normal(60, 100, 100)
        preferences = (rng.random(100) < sigmoid(0.3 + 1.0 * np.tanh(differences / 100))).astype(float)
        interval = length_controlled_win_rate(preferences.tolist(), differences.tolist(), num_resamples=300).win_rate
        held += interval.low <= 1 / (1 + math.exp(-0.3)) <= interval.high
    assert 0.90 <= held / 200 <= 0.99


def test_what_cannot_be_fitted_is_refused() -> None:
    for preferences, differences, words in (([0.5], [], "one length"), ([], [], "at least one"), ([1.5], [0.0], "0 to 1")):
        with pytest.raises(ValueError, match=words):
            length_controlled_win_rate(preferences, differences)
    with pytest.raises(ValueError, match="0 to 1"):
        length_controlled_win_rate([math.nan], [0.0])
    with pytest.raises(ValueError, match="above 0"):
        length_controlled_win_rate([1.0], [0.0], l2=0.0)
