"""Perplexity: among how many equally likely tokens, words or bytes the model seems to choose at each place.

perplexity = exp(-(sum of log-probabilities) / units)

    token_perplexity  per token: only comparable between models with one vocabulary
    word_perplexity   per word of the text, whatever the tokens; byte_perplexity per UTF-8 byte: comparable. log2 of it is bits per byte

Source: Jelinek et al. 1977, "Perplexity: a measure of the difficulty of speech recognition tasks"; the three units as in lm-eval.
We differ: words are what stands between white space; lm-eval's split also counts an empty piece at either end of the text.
"""

import math
from collections.abc import Sequence


def token_perplexity(logprobs: Sequence[float], num_tokens: Sequence[int]) -> float:
    """Of pieces of text, each with its summed natural log-probability."""
    return _perplexity(logprobs, num_tokens, "tokens")


def word_perplexity(logprobs: Sequence[float], texts: Sequence[str]) -> float:
    return _perplexity(logprobs, [len(text.split()) for text in texts], "words")


def byte_perplexity(logprobs: Sequence[float], num_bytes: Sequence[int]) -> float:
    return _perplexity(logprobs, num_bytes, "bytes")


def _perplexity(logprobs: Sequence[float], units: Sequence[int], name: str) -> float:
    if not len(logprobs) or len(logprobs) != len(units):
        raise ValueError(f"perplexity needs as many log-probabilities as texts, and some: {len(logprobs)} and {len(units)}")
    for place, logprob in enumerate(logprobs):
        if math.isnan(logprob):
            raise ValueError(f"the log-probability of piece {place} of {len(logprobs)} is {logprob}")
    if sum(units) <= 0:
        raise ValueError(f"perplexity over {sum(units)} {name} is not defined")
    exponent = -sum(logprobs) / sum(units)
    return math.exp(exponent) if exponent < 709 else math.inf  # beyond, exp overflows
