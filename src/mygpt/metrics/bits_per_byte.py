"""Bits per byte: how many bits a model needs for each byte of a text. Models with different vocabularies can be compared.

bpb = -(sum of log-probabilities) / (ln 2 * UTF-8 bytes)

Source: Gao et al. 2020, "The Pile", arXiv:2101.00027, section 3.1 (log-likelihood in nats over bytes, divided by ln 2).
"""

import math
from collections.abc import Sequence


def bits_per_byte(logprobs: Sequence[float], num_bytes: Sequence[int]) -> float:
    """Of pieces of text, each with its summed natural log-probability. Raises ValueError when there is no byte."""
    if len(logprobs) != len(num_bytes):
        raise ValueError(f"each piece needs its log-probability and its bytes: {len(logprobs)} and {len(num_bytes)}")
    if sum(num_bytes) == 0:
        raise ValueError("bits per byte of an empty text is not defined")
    return -sum(logprobs) / (math.log(2) * sum(num_bytes))
