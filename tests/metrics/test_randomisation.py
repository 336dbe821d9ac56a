"""Approximate randomisation: against all swaps of eight items, against SciPy, and how often it claims what is not so."""

import itertools

import numpy as np
import pytest

from mygpt.metrics.randomisation import approximate_randomisation

EIGHT_AFTER, EIGHT_BEFORE = [0.9, 0.4, 0.8, 0.6, 1.0, 0.5, 0.7, 0.3], [0.5, 0.5, 0.6, 0.2, 0.7, 0.5, 0.1, 0.2]


def test_two_items_by_hand() -> None:
    """Gains 1 and 2: of the four swaps +3, +1, -1, -3 two are as far as 3. p = (5,000 + 1) / 10,001 but for luck."""
    p = approximate_randomisation([1.0, 2.0], [0.0, 0.0])
    assert p == pytest.approx(0.5, abs=0.015)


def test_p_counts_itself() -> None:
    """No swap reaches 200 equal gains: p = 1 / (N + 1), never 0. Nothing differs: every swap does as much, p = 1."""
    assert approximate_randomisation([1.0] * 200, [0.0] * 200, num_samples=999) == 1 / 1_000
    assert approximate_randomisation([0.3, 0.7], [0.3, 0.7], num_samples=99) == 1.0


def test_against_all_swaps() -> None:
    """Gains .4 -.1 .2 .4 .3 0 .6 .1 sum to 1.9 and reach 2.1 at most: as far as 1.9 are the signs that give away nothing or one of the
    two .1s, whichever sign the 0 has: 3 * 2 of 256, and as many on the other side."""
    gains = np.array(EIGHT_AFTER) - np.array(EIGHT_BEFORE)
    swaps = [float(np.dot(signs, gains)) for signs in itertools.product((1, -1), repeat=8)]
    exact = sum(abs(d) >= abs(gains.sum()) - 1e-9 for d in swaps) / 2**8
    assert exact == 12 / 256
    assert approximate_randomisation(EIGHT_AFTER, EIGHT_BEFORE, num_samples=40_000) == pytest.approx(exact, abs=0.002)


def test_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(7)
    after, before = rng.beta(2, 3, 40), rng.beta(2, 3.6, 40)
    theirs = stats.permutation_test(
        (after, before),
        lambda a, b, axis: (a - b).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=rng,
    ).pvalue
    assert 0.01 < theirs < 0.9
    assert approximate_randomisation(after, before, num_samples=20_000) == pytest.approx(theirs, abs=0.02)


def test_statistic_of_a_corpus() -> None:
    """F1 from sums of matches and lengths: vectorised swaps equal a loop that swaps items one by one."""
    rng = np.random.default_rng(8)
    lengths = rng.integers(5, 20, (6, 2))
    after = np.column_stack([rng.integers(0, 5, 6), lengths]).astype(float)
    before = np.column_stack([rng.integers(0, 5, 6), lengths]).astype(float)

    def f1(sums_K: np.ndarray) -> np.ndarray:
        return 2 * sums_K[..., 0] / (sums_K[..., 1] + sums_K[..., 2])

    observed, as_far = abs(f1(after.sum(axis=0)) - f1(before.sum(axis=0))), 0
    for swap in itertools.product((False, True), repeat=6):
        a = sum(before[i] if s else after[i] for i, s in enumerate(swap))
        b = sum(after[i] if s else before[i] for i, s in enumerate(swap))
        as_far += abs(f1(a) - f1(b)) >= observed - 1e-9
    assert approximate_randomisation(after, before, f1, num_samples=40_000) == pytest.approx(as_far / 64, abs=0.01)


def test_clusters_are_swapped_whole() -> None:
    """Eight items of one passage are one draw of luck: two swaps, both as far."""
    assert approximate_randomisation(EIGHT_AFTER, EIGHT_BEFORE, clusters=["one"] * 8, num_samples=99) == 1.0
    pairs = approximate_randomisation(EIGHT_AFTER, EIGHT_BEFORE, clusters=[str(i // 2) for i in range(8)], num_samples=40_000)
    assert pairs == pytest.approx(2 / 16, abs=0.01)  # gains .3 .6 .3 .7: only all or none


def test_claims_without_difference_come_as_often_as_stated() -> None:
    rng = np.random.default_rng(9)
    claimed = 0
    for seed in range(400):
        after, before = rng.beta(2, 3, (2, 30))
        claimed += approximate_randomisation(after, before, num_samples=400, seed=seed) <= 0.05
    assert claimed / 400 == pytest.approx(0.05, abs=0.033)  # 3 standard errors


def test_same_seed_same_p() -> None:
    assert approximate_randomisation(EIGHT_AFTER, EIGHT_BEFORE, seed=3) == approximate_randomisation(EIGHT_AFTER, EIGHT_BEFORE, seed=3)
    assert approximate_randomisation(EIGHT_AFTER, EIGHT_BEFORE) == approximate_randomisation(EIGHT_BEFORE, EIGHT_AFTER)


def test_unequal_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="as many"):
        approximate_randomisation([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="as many"):
        approximate_randomisation([], [])
