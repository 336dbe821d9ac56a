"""What it is worth to know whom to trust: made-up raters on made-up pairs, 100 times each.

    python -m benchmarks.raters --json --keep

Every pair has a better answer; a rater says so with a probability of their own. Labels by majority (a draw is half right) against those
of `pair_reliability` (the likelier answer); what its probabilities promise (`claimed`); how often the 95 % limits of a reliability
hold the true one, with the prior of 2 decisions and with 5. Then systems compared many times: how far Bradley-Terry's strengths are off,
with every vote taken at its word and with `crowd_bradley_terry`.
"""

import time
from collections import defaultdict
from typing import Any

import numpy as np

from benchmarks.record import arguments, finish
from mygpt.metrics.bradley_terry import Comparison, bradley_terry
from mygpt.metrics.crowd_bradley_terry import crowd_bradley_terry
from mygpt.metrics.dawid_skene import Vote, pair_reliability

SIMULATIONS, SEED = 100, 20_261_126
CROWDS = {
    "three alike": (0.85, 0.85, 0.85),
    "one careful, two careless": (0.95, 0.6, 0.6),
    "careful, good, fair, a coin, contrary": (0.95, 0.85, 0.75, 0.5, 0.1),
}
SIZES = (60,)
ETA = (0.95, 0.85, 0.5, 0.1)


def labels(rightness: tuple[float, ...], num_pairs: int, rng: np.random.Generator) -> dict[str, Any]:
    right: dict[str, list[float]] = defaultdict(list)
    held: dict[str, list[bool]] = defaultdict(list)
    for _ in range(SIMULATIONS):
        truth = rng.random(num_pairs) < 0.5
        said = truth[:, None] == (rng.random((num_pairs, len(rightness))) < rightness)
        votes = [Vote(str(n), "a", "b", float(said[n, j]), str(j)) for n in range(num_pairs) for j in range(len(rightness))]
        found = pair_reliability(votes, seed=int(rng.integers(2**31)))
        first = np.asarray([found.probability[str(n), "a", "b"] for n in range(num_pairs)])
        share = said.mean(axis=1)
        right["majority"].append(float(np.where(share == 0.5, 0.5, (share > 0.5) == truth).mean()))
        right["dawid_skene"].append(float(((first > 0.5) == truth).mean()))
        right["claimed"].append(float(np.maximum(first, 1 - first).mean()))
        five = pair_reliability(votes, prior_decisions=5, seed=int(rng.integers(2**31)))
        for j, true in enumerate(rightness):
            held[f"{true:g}"].append(found.raters[str(j)].low <= true <= found.raters[str(j)].high)
            held[f"{true:g}, prior of 5"].append(five.raters[str(j)].low <= true <= five.raters[str(j)].high)
    return {
        "right": {name: round(float(np.mean(values)), 4) for name, values in right.items()},
        "limits_hold": {name: round(float(np.mean(values)), 4) for name, values in sorted(held.items())},
    }


def strengths(num_systems: int, times: int, rng: np.random.Generator) -> dict[str, float]:
    """Root mean square distance of the strengths from the true ones, in logits, and of the reliabilities."""
    off: dict[str, list[float]] = defaultdict(list)
    for _ in range(SIMULATIONS // 10):
        truth = rng.normal(0, 1, num_systems)
        truth -= truth.mean()
        votes = []
        for i in range(num_systems):
            for k in range(i + 1, num_systems):
                for j, eta in enumerate(ETA):
                    wins = rng.random(times) < 1 / (1 + np.exp(truth[k] - truth[i]))
                    said = wins == (rng.random(times) < eta)
                    votes += [Vote(str(n), f"s{i}", f"s{k}", float(one), str(j)) for n, one in enumerate(said)]
        crowd = crowd_bradley_terry(votes)
        plain = bradley_terry([Comparison(v.first, v.second, v.outcome) for v in votes])
        for name, found in (("at their word", plain), ("crowd_bradley_terry", crowd.strengths)):
            off[name].append(float(np.sqrt(np.mean((np.asarray([found[f"s{i}"] for i in range(num_systems)]) - truth) ** 2))))
        off["eta"].append(float(np.sqrt(np.mean((np.asarray([crowd.raters[str(j)] for j in range(len(ETA))]) - ETA) ** 2))))
    return {name: round(float(np.mean(values)), 4) for name, values in off.items()}


def main() -> None:
    options = arguments(__doc__.splitlines()[0]).parse_args()
    started, rng = time.perf_counter(), np.random.default_rng(SEED)
    by_crowd = {name: {str(size): labels(rightness, size, rng) for size in SIZES} for name, rightness in CROWDS.items()}
    for sizes in by_crowd.values():  # the work was done: labels are better than a coin's, and never clearly worse than the majority's
        for row in sizes.values():
            assert row["right"]["dawid_skene"] > max(0.6, row["right"]["majority"] - 0.02), row
    figures = {
        "labels": by_crowd,
        "strengths": {"5 systems, 40 votes of each rater on each pair": strengths(5, 40, rng)},
        "simulations": SIMULATIONS,
        "seconds": round(time.perf_counter() - started),
    }
    finish("raters", figures, options, seed=SEED)


if __name__ == "__main__":
    main()
