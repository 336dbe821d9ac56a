"""Embedding similarity: do two texts mean about the same? The cosine of their sentence vectors, whatever words they use.

sim(a, b) = a . b for unit vectors, -1 to 1. The vectors come from an Embedder (`infer/protocols`); here is only the arithmetic.

Source: Reimers and Gurevych 2019, "Sentence-BERT", arXiv:1908.10084, section 3. Beside ROUGE and BLEU, not instead of a check of facts:
a sentence and its denial lie close together (`docs/evaluate/metrics/similarity.md` has the numbers).
"""

import numpy as np

_UNIT = 1e-2  # bfloat16 vectors are of length 1 to about 0.4 %


def embedding_similarity(answers_ND: np.ndarray, references_ND: np.ndarray) -> list[float]:
    """Of row i with row i, one number per pair."""
    answers_ND, references_ND = np.asarray(answers_ND, dtype=np.float64), np.asarray(references_ND, dtype=np.float64)
    if answers_ND.ndim != 2 or answers_ND.shape != references_ND.shape or not answers_ND.size:
        raise ValueError(f"similarity needs two arrays (N, D) alike, and some rows: {answers_ND.shape} and {references_ND.shape}")
    for side, vectors_ND in (("answer", answers_ND), ("reference", references_ND)):
        lengths_N = np.linalg.norm(vectors_ND, axis=1)
        off = np.flatnonzero(~(np.abs(lengths_N - 1) < _UNIT))  # NaN is off too
        if len(off):
            raise ValueError(f"{side} {off[0]} of {len(vectors_ND)} has a vector of length {lengths_N[off[0]]:.3f}, not 1")
    return [float(s) for s in np.clip((answers_ND * references_ND).sum(axis=1), -1.0, 1.0)]
