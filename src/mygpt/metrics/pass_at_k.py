"""pass@k: how likely is it that at least one of k programs, drawn from the model, passes its tests?

Of n samples c pass. pass@k = 1 - C(n - c, k) / C(n, k): the share of draws of k among the n that hold a passing one. Unbiased;
1 - (1 - c/n)^k, which looks the same, is too low.

Source: Chen et al. 2021, "Evaluating large language models trained on code", arXiv:2107.03374, section 2.1, equation 1.
"""

from collections.abc import Sequence
from math import prod


def pass_at_k(num_samples: int, num_passed: int, k: int) -> float:
    """Of one task. Needs k samples or more."""
    if not 0 <= num_passed <= num_samples or k < 1:
        raise ValueError(f"pass@{k}: {num_passed} of {num_samples} samples passed")
    if num_samples < k:
        raise ValueError(f"pass@{k} needs {k} samples of a task or more, not {num_samples}")
    if num_samples - num_passed < k:
        return 1.0
    return 1.0 - prod(1 - k / n for n in range(num_samples - num_passed + 1, num_samples + 1))  # no large factorials


def mean_pass_at_k(num_samples: Sequence[int], num_passed: Sequence[int], k: int) -> float:
    """Over tasks; each counts the same, however often it was sampled."""
    if not num_samples or len(num_samples) != len(num_passed):
        raise ValueError(f"pass@{k} needs samples and passes of as many tasks, and some: {len(num_samples)} and {len(num_passed)}")
    return sum(pass_at_k(n, c, k) for n, c in zip(num_samples, num_passed, strict=True)) / len(num_samples)
