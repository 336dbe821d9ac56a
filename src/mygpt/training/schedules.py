"""The learning rate over a run, as a factor of its peak."""

import math


def warmup_cosine(step: int, *, num_steps: int, warmup_share: float, final_share: float) -> float:
    """Rises linearly over the first `warmup_share` of the steps, falls as a cosine to `final_share`.

    `step` counts from 0; the first step already moves, the last one stands just above the end.
    Source: cosine decay, Loshchilov and Hutter 2016, arXiv:1608.03983, equation 5 without restarts.
    """
    warmup = max(1, round(num_steps * warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * progress))


def linear(step: int, *, num_steps: int, warmup_share: float, final_share: float) -> float:
    """Rises linearly over the first `warmup_share` of the steps (0: not at all), falls linearly to `final_share`.

    `step` counts from 0; the last one stands just above the end.
    """
    warmup = round(num_steps * warmup_share)
    if step < warmup:
        return (step + 1) / warmup
    return 1 - (1 - final_share) * (step - warmup) / max(1, num_steps - warmup)
