"""The optimum by hand and by its gradient, the temperature by hand, and what is stored."""

from pathlib import Path

import numpy as np
import pytest

from mygpt.core.errors import Damaged, UsageError
from mygpt.training.probe import Probe, fit_probe, load_probe, rescaled


def test_one_dimension_by_hand() -> None:
    """Rows at +1 are "yes", rows at -1 "no", half each. By symmetry b = 0 and W = (-w, w): the loss is log(1 + e^-2w) + l2 w^2, and its
    derivative 2 l2 w - 2 / (1 + e^2w) is zero at w = 1 for l2 = 1 / (1 + e^2)."""
    vectors = np.asarray([[1.0], [-1.0], [1.0], [-1.0]])
    probe = fit_probe(vectors, ["yes", "no", "yes", "no"], l2=1 / (1 + np.e**2))
    assert probe.labels == ("no", "yes")
    assert probe.weights_KD == pytest.approx(np.asarray([[-1.0], [1.0]]), abs=1e-6)
    assert probe.bias_K == pytest.approx(np.zeros(2), abs=1e-6)
    assert probe.probabilities(np.asarray([[1.0]]))[0] == pytest.approx([1 / (1 + np.e**2), 1 / (1 + np.e**-2)], abs=1e-6)


def test_a_probe_that_cannot_tell_gives_the_frequencies() -> None:
    """All vectors alike: the bias alone decides, and the optimum is the share of each class; weights move it."""
    vectors = np.ones((10, 3))
    labels = ["a"] * 6 + ["b"] * 3 + ["c"]
    plain = fit_probe(vectors, labels, l2=1e-3)
    assert plain.probabilities(vectors[:1])[0] == pytest.approx([0.6, 0.3, 0.1], abs=1e-5)
    even = fit_probe(vectors, labels, l2=1e-3, weights_N=[1 / 6] * 6 + [1 / 3] * 3 + [1.0])
    assert even.probabilities(vectors[:1])[0] == pytest.approx([1 / 3] * 3, abs=1e-5)


def _rows(num_rows: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Three classes around three directions of a narrow cone, as sentence vectors lie; unit length."""
    rng = np.random.default_rng(seed)
    centres = 3 * np.eye(8)[0] + np.eye(8)[1:4]
    number = rng.integers(0, 3, num_rows)
    vectors = centres[number] + 0.6 * rng.normal(size=(num_rows, 8))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), [("hot", "cold", "mild")[k] for k in number]


def test_the_gradient_is_zero_at_the_optimum() -> None:
    """Computed here from the formula of the loss, without the solver's change of basis."""
    vectors_ND, labels = _rows(400, seed=1)
    weights_N = np.random.default_rng(2).uniform(0.5, 2, 400)
    probe = fit_probe(vectors_ND, labels, l2=1e-3, weights_N=weights_N)
    target_NK = np.asarray([[label == one for one in probe.labels] for label in labels], dtype=float)
    error_NK = (probe.probabilities(vectors_ND) - target_NK) * (weights_N / weights_N.sum())[:, None]
    assert np.abs(error_NK.T @ vectors_ND + 1e-3 * probe.weights_KD).max() < 1e-6
    assert np.abs(error_NK.sum(axis=0)).max() < 1e-6
    assert probe.bias_K.sum() == pytest.approx(0, abs=1e-9)


def test_learns_and_repeats() -> None:
    vectors_ND, labels = _rows(600, seed=3)
    first, second = (fit_probe(vectors_ND[:400], labels[:400], l2=1e-3) for _ in range(2))
    assert (first.weights_KD == second.weights_KD).all() and (first.bias_K == second.bias_K).all()
    guessed = np.asarray(first.labels)[first.probabilities(vectors_ND[400:]).argmax(axis=1)]
    assert (guessed == labels[400:]).mean() > 0.75  # a third by chance
    order = np.random.default_rng(4).permutation(400)
    shuffled = fit_probe(vectors_ND[order], [labels[i] for i in order], l2=1e-3)
    assert shuffled.weights_KD == pytest.approx(first.weights_KD, abs=1e-4)


def test_temperature_by_hand() -> None:
    """Logits +-3 for rows of which 3 in 4 are as predicted: the best probability is 3/4, a logit of log 3, so T = 6 / log 3."""
    probe = Probe(np.asarray([[-3.0], [3.0]]), np.zeros(2), ("no", "yes"))
    cooler, temperature = rescaled(probe, np.ones((4, 1)), ["yes", "yes", "yes", "no"])
    assert temperature == pytest.approx(6 / np.log(3), rel=1e-6)
    assert cooler.probabilities(np.ones((1, 1)))[0] == pytest.approx([0.25, 0.75])


def test_stored_and_read(tmp_path: Path) -> None:
    vectors_ND, labels = _rows(100, seed=5)
    probe = fit_probe(vectors_ND, labels, l2=1e-2)
    probe.save(tmp_path / "probe.safetensors", about={"data": "made up"}, extra={"check": np.eye(2, dtype=np.float16)})
    stored = load_probe(tmp_path / "probe.safetensors")
    assert stored.probe.labels == probe.labels and stored.about == {"data": "made up"}
    assert (stored.extra["check"] == np.eye(2)).all()
    assert stored.probe.probabilities(vectors_ND) == pytest.approx(probe.probabilities(vectors_ND), abs=1e-6)  # float32 on disk
    (tmp_path / "broken.safetensors").write_bytes(b"\x80\x04not a probe")
    for name in ("broken", "missing"):
        with pytest.raises(Damaged, match="is not a stored probe"):
            load_probe(tmp_path / f"{name}.safetensors")


def test_bad_input() -> None:
    vectors_ND, labels = _rows(20, seed=6)
    with pytest.raises(UsageError, match="all rows are"):
        fit_probe(vectors_ND, ["same"] * 20, l2=1e-3)
    with pytest.raises(UsageError, match="no optimum"):
        fit_probe(vectors_ND, labels, l2=0)
    with pytest.raises(UsageError, match="19 labels do not belong"):
        fit_probe(vectors_ND, labels[:19], l2=1e-3)
    with pytest.raises(UsageError, match="none of them negative"):
        fit_probe(vectors_ND, labels, l2=1e-3, weights_N=[-1.0] * 20)
    spoilt_ND = vectors_ND.copy()
    spoilt_ND[7, 2] = np.nan
    with pytest.raises(UsageError, match="Row 7"):
        fit_probe(spoilt_ND, labels, l2=1e-3)
    probe = fit_probe(vectors_ND, labels, l2=1e-3)
    with pytest.raises(ValueError, match="8 dimensions"):
        probe.probabilities(np.ones((2, 5)))
    with pytest.raises(UsageError, match="not tepid"):
        rescaled(probe, vectors_ND[:1], ["tepid"])
