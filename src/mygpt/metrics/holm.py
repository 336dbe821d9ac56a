"""Holm's correction: p-values of several tasks, adjusted so that all claims together are wrong with at most the stated chance.

Sorted upwards, the i-th of m (from 0) is multiplied by m - i, never falls below the one before it, and is at most 1. A claim stands when
its adjusted p is below the chance of error allowed. Holds whatever the dependence, and claims whatever Bonferroni's m * p does, or more.

Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
"""

from collections.abc import Mapping


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p by name, in the order given."""
    wrong = {name: p for name, p in p_values.items() if not 0 <= p <= 1}
    if wrong:
        raise ValueError(f"p-values lie between 0 and 1: {wrong}")
    adjusted, floor = {}, 0.0
    for i, (name, p) in enumerate(sorted(p_values.items(), key=lambda named: named[1])):
        floor = adjusted[name] = max(floor, min(1.0, (len(p_values) - i) * p))
    return {name: adjusted[name] for name in p_values}
