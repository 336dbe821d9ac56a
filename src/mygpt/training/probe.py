"""A linear probe: multinomial logistic regression on fixed vectors, fitted to the one optimum of a convex loss.

    fit_probe(vectors, labels, l2=...)       minimise  mean over rows of -log softmax(W v + b)[label]  +  l2 / 2 * |W|^2
    rescaled(probe, vectors, labels)         the same probe with W and b divided by one temperature, fitted on rows it was not fitted on
    Probe.probabilities(vectors)             softmax(W v + b)

Source     Alain and Bengio 2016, arXiv:1610.01644 (linear classifiers on frozen representations); the temperature: Guo et al. 2017,
           arXiv:1706.04599, section 4.2
We differ  fitted in full batches to a gradient of about 0, in float64, from zero weights: the same rows give the same probe, without seed.
           The bias is not penalised; a constant added to all biases changes nothing, so they are made to sum to 0
Dims       N rows   D dimensions   K classes
Stored     safetensors: weights_KD, bias_K (float32); the labels and what the caller adds stand in its header
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mygpt.core.errors import Damaged, UsageError

_HEADER = "probe"


@dataclass(frozen=True)
class Probe:
    weights_KD: np.ndarray
    bias_K: np.ndarray
    labels: tuple[str, ...]

    def logits(self, vectors_ND: np.ndarray) -> np.ndarray:
        if vectors_ND.ndim != 2 or vectors_ND.shape[1] != self.weights_KD.shape[1]:
            expected = self.weights_KD.shape[1]
            raise ValueError(f"the probe reads vectors of {expected} dimensions, not an array of shape {vectors_ND.shape}")
        logits_NK: np.ndarray = vectors_ND.astype(np.float64) @ self.weights_KD.T.astype(np.float64) + self.bias_K
        return logits_NK

    def probabilities(self, vectors_ND: np.ndarray) -> np.ndarray:
        """(N, K), in the order of `labels`; each row sums to 1."""
        return np.exp(_log_softmax(self.logits(vectors_ND)))

    def save(self, path: Path, *, about: Mapping[str, Any] | None = None, extra: Mapping[str, np.ndarray] | None = None) -> None:
        """`about` (JSON) goes into the header, `extra` arrays beside the weights."""
        from safetensors.numpy import save_file

        header = json.dumps({"labels": list(self.labels), "about": dict(about or {})}, ensure_ascii=False, sort_keys=True)
        tensors = {"weights_KD": self.weights_KD.astype(np.float32), "bias_K": self.bias_K.astype(np.float32), **(extra or {})}
        save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path, metadata={_HEADER: header})


@dataclass(frozen=True)
class StoredProbe:
    probe: Probe
    about: dict[str, Any]
    extra: dict[str, np.ndarray]


def load_probe(path: Path) -> StoredProbe:
    """Raises Damaged when the file is not a probe."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        probe = Probe(tensors.pop("weights_KD"), tensors.pop("bias_K"), tuple(header["labels"]))
        return StoredProbe(probe, header["about"], tensors)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise Damaged(f"{path} is not a stored probe: {error}.", fix="Fit it again, or install mygpt again if it came with it.") from error


def fit_probe(
    vectors_ND: np.ndarray,
    labels_N: Sequence[str],
    *,
    l2: float,
    weights_N: Sequence[float] | np.ndarray | None = None,
    max_iterations: int = 2_000,
) -> Probe:
    """`weights_N` says how much each row counts, for example 1 / (rows of its class) so that classes count alike."""
    from scipy.optimize import minimize

    labels = tuple(sorted(set(labels_N)))
    if len(labels) < 2:
        raise UsageError(f"A probe tells classes apart, and all rows are {labels or 'missing'}.", fix="Give rows of at least two classes.")
    if l2 <= 0:
        raise UsageError(f"l2 is {l2}: without a penalty, separable classes have no optimum.", fix="Give a positive l2, such as 1e-4.")
    vectors_ND = _finite(vectors_ND, len(labels_N))
    num_classes = len(labels)
    target_N = np.searchsorted(np.asarray(labels), np.asarray(labels_N))
    share_N = _shares(weights_N, len(labels_N))
    mean_D, scale_DD = _conditioned(vectors_ND, share_N, l2=l2, num_classes=num_classes)
    easy_ND = (vectors_ND - mean_D) @ scale_DD

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        easy_KD, bias_K = flat[:-num_classes].reshape(num_classes, -1), flat[-num_classes:]
        weights_KD = easy_KD @ scale_DD
        log_p_NK = _log_softmax(easy_ND @ easy_KD.T + bias_K)
        loss = -float(share_N @ log_p_NK[np.arange(len(target_N)), target_N]) + l2 / 2 * float((weights_KD**2).sum())
        error_NK = np.exp(log_p_NK)
        error_NK[np.arange(len(target_N)), target_N] -= 1
        error_NK *= share_N[:, None]
        return loss, np.concatenate([(error_NK.T @ easy_ND + l2 * weights_KD @ scale_DD).ravel(), error_NK.sum(axis=0)])

    start = np.zeros(num_classes * (vectors_ND.shape[1] + 1))
    settings = {"maxiter": max_iterations, "maxfun": 2 * max_iterations, "gtol": 1e-9, "ftol": 1e-16, "maxcor": 20}
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options=settings)
    if np.abs(found.jac).max() > 1e-5:
        what = f"The probe did not settle in {found.nit} steps: its gradient is {np.abs(found.jac).max():.1e}."
        raise UsageError(what, fix="Raise l2 or max_iterations.")
    weights_KD = found.x[:-num_classes].reshape(num_classes, -1) @ scale_DD
    bias_K = found.x[-num_classes:] - weights_KD @ mean_D
    return Probe(weights_KD, bias_K - bias_K.mean(), labels)


def rescaled(
    probe: Probe, vectors_ND: np.ndarray, labels_N: Sequence[str], *, weights_N: Sequence[float] | np.ndarray | None = None
) -> tuple[Probe, float]:
    """The probe at the temperature that makes these rows most likely, and that temperature: above 1 it had been too sure."""
    from scipy.optimize import minimize_scalar

    unknown = sorted(set(labels_N) - set(probe.labels))
    if unknown:
        what = f"The probe knows {', '.join(probe.labels)}, not {', '.join(unknown)}."
        raise UsageError(what, fix="Give rows of the classes it was fitted on.")
    logits_NK = probe.logits(_finite(vectors_ND, len(labels_N)))
    target_N = np.asarray([probe.labels.index(label) for label in labels_N])
    share_N = _shares(weights_N, len(labels_N))

    def loss(log_temperature: float) -> float:
        log_p_NK = _log_softmax(logits_NK / np.exp(log_temperature))
        return -float(share_N @ log_p_NK[np.arange(len(target_N)), target_N])

    temperature = float(np.exp(minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded", options={"xatol": 1e-9}).x))
    return replace(probe, weights_KD=probe.weights_KD / temperature, bias_K=probe.bias_K / temperature), temperature


def _conditioned(vectors_ND: np.ndarray, share_N: np.ndarray, *, l2: float, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(D), (D, D): with vectors moved by the one and turned by the other, the loss curves alike in all directions.

    Only the path to the optimum changes, not the optimum: sentence vectors lie in a narrow cone, and there the plain path is long.
    """
    mean_D = share_N @ vectors_ND
    centred_ND = vectors_ND - mean_D
    curvature_D, directions_DD = np.linalg.eigh((centred_ND * share_N[:, None]).T @ centred_ND / num_classes)
    scale_DD: np.ndarray = (directions_DD / np.sqrt(np.maximum(curvature_D, 0) + l2)) @ directions_DD.T
    return mean_D, scale_DD


def _finite(vectors_ND: np.ndarray, num_labels: int) -> np.ndarray:
    vectors_ND = np.asarray(vectors_ND, dtype=np.float64)
    if vectors_ND.ndim != 2 or len(vectors_ND) != num_labels:
        raise UsageError(f"Vectors of shape {vectors_ND.shape} and {num_labels} labels do not belong together.", fix="One row per label.")
    if not np.isfinite(vectors_ND).all():
        bad = int((~np.isfinite(vectors_ND)).any(axis=1).argmax())
        raise UsageError(f"Row {bad} holds a value that is not a number.", fix="Embed that text again, or leave it out.")
    return vectors_ND


def _shares(weights_N: Sequence[float] | np.ndarray | None, num_rows: int) -> np.ndarray:
    weights = np.ones(num_rows) if weights_N is None else np.asarray(weights_N, dtype=np.float64)
    if weights.shape != (num_rows,) or not (weights >= 0).all() or not weights.sum() > 0:
        raise UsageError(f"{num_rows} rows need as many weights, none of them negative, not {weights.shape}.", fix="One weight per row.")
    shares_N: np.ndarray = weights / weights.sum()
    return shares_N


def _log_softmax(logits_NK: np.ndarray) -> np.ndarray:
    shifted_NK = logits_NK - logits_NK.max(axis=1, keepdims=True)
    log_p_NK: np.ndarray = shifted_NK - np.log(np.exp(shifted_NK).sum(axis=1, keepdims=True))
    return log_p_NK
